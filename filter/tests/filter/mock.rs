//! A mock of Envoy that records what it was told.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use weft_filter::head_block::HeadBlock;
use weft_filter::host::{Change, Host, MetricKind, SharedData};
use weft_filter::request::Request;
use weft_filter::root::Root;
use weft_routing::{DocumentId, Epoch, IndexRoute, RoutingTable, ShardId, SlotMap};

/// A call that the filter dispatched.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) cluster: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
    pub(crate) token: u32,
}

impl Call {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) now_ms: Cell<u64>,
    pub(crate) request: RefCell<Vec<(String, Vec<u8>)>>,
    /// How often single headers were asked for, and how often all.
    pub(crate) asked_singly: Cell<u32>,
    pub(crate) asked_for_all: Cell<u32>,
    pub(crate) request_body: RefCell<Vec<u8>>,
    pub(crate) response: RefCell<BTreeMap<String, String>>,
    pub(crate) response_body: RefCell<Vec<u8>>,
    pub(crate) resumed: Cell<bool>,
    pub(crate) responded: Cell<Option<u16>>,
    pub(crate) calls: RefCell<Vec<Call>>,
    /// The answer to the call whose callback is running.
    pub(crate) answer: RefCell<Option<(u16, Vec<u8>)>>,
    pub(crate) calls_fail: Cell<bool>,
    pub(crate) route_cache_cleared: Cell<bool>,
    pub(crate) tick_ms: Cell<u128>,
    pub(crate) log: RefCell<Vec<String>>,
    /// What this worker shares with others.
    pub(crate) common: Rc<Common>,
    names: RefCell<Vec<String>>,
    values: RefCell<BTreeMap<u32, i64>>,
}

/// The data of all workers, under one key, with Envoy's rules for versions.
#[derive(Default)]
pub(crate) struct Common {
    value: RefCell<Option<(Vec<u8>, u32)>>,
    versions: Cell<u32>,
    pub(crate) unreadable: Cell<bool>,
    pub(crate) unchangeable: Cell<bool>,
    /// What other workers do between the next read and what follows it.
    pub(crate) meanwhile: RefCell<Option<Box<dyn FnOnce()>>>,
}

impl Common {
    pub(crate) fn bytes(&self) -> Option<Vec<u8>> {
        self.value.borrow().as_ref().map(|(bytes, _)| bytes.clone())
    }

    pub(crate) fn put(&self, bytes: &[u8]) {
        self.versions.set(self.versions.get() + 1);
        *self.value.borrow_mut() = Some((bytes.to_vec(), self.versions.get()));
    }
}

impl std::fmt::Debug for Common {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Common({:?})", self.value.borrow())
    }
}

/// The mock, shared between the filter and the test.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mock(pub(crate) Rc<State>);

impl Host for Mock {
    fn now_ms(&self) -> u64 {
        self.0.now_ms.get()
    }

    fn warn(&self, message: &str) {
        self.0.log.borrow_mut().push(message.to_owned());
    }

    fn request_headers(&self) -> HeadBlock {
        self.0.asked_for_all.set(self.0.asked_for_all.get() + 1);
        HeadBlock::of(&self.0.request.borrow())
    }

    fn request_header(&self, name: &str) -> Option<Vec<u8>> {
        self.0.asked_singly.set(self.0.asked_singly.get() + 1);
        let request = self.0.request.borrow();
        let values = request.iter().filter(|(known, _)| known == name);
        let values: Vec<_> = values.map(|(_, value)| value.as_slice()).collect();
        (!values.is_empty()).then(|| values.join(&b','))
    }

    fn set_request_header(&self, name: &str, value: &str) {
        self.remove_request_header(name);
        self.0
            .request
            .borrow_mut()
            .push((name.to_owned(), value.as_bytes().to_vec()));
    }

    fn remove_request_header(&self, name: &str) {
        self.0
            .request
            .borrow_mut()
            .retain(|(known, _)| !known.eq_ignore_ascii_case(name));
    }

    fn clear_route_cache(&self) {
        self.0.route_cache_cleared.set(true);
    }

    fn request_body(&self, max_bytes: u32) -> Option<Vec<u8>> {
        Some(cut(&self.0.request_body.borrow(), max_bytes))
    }

    fn response_header(&self, name: &str) -> Option<Vec<u8>> {
        self.0
            .response
            .borrow()
            .get(name)
            .map(|value| value.as_bytes().to_vec())
    }

    fn set_response_header(&self, name: &str, value: &str) {
        self.0
            .response
            .borrow_mut()
            .insert(name.to_owned(), value.to_owned());
    }

    fn remove_response_header(&self, name: &str) {
        self.0.response.borrow_mut().remove(name);
    }

    fn response_body(&self, max_bytes: u32) -> Option<Vec<u8>> {
        Some(cut(&self.0.response_body.borrow(), max_bytes))
    }

    fn replace_response_body(&self, body: &[u8]) {
        *self.0.response_body.borrow_mut() = body.to_vec();
    }

    fn resume_response(&self) {
        self.0.resumed.set(true);
    }

    fn respond(&self, status: u16) {
        self.0.responded.set(Some(status));
    }

    fn respond_with(&self, status: u16, headers: &[(&str, &str)], body: &str) {
        self.respond(status);
        for (name, value) in headers {
            self.set_response_header(name, value);
        }
        self.replace_response_body(body.as_bytes());
    }

    fn shared_data(&self, _key: &str) -> SharedData {
        let common = &self.0.common;
        let read = match (common.unreadable.get(), &*common.value.borrow()) {
            (true, _) => SharedData::Unknown,
            (false, None) => SharedData::Absent,
            (false, Some((bytes, version))) => SharedData::Value {
                bytes: bytes.clone(),
                version: *version,
            },
        };
        let meanwhile = common.meanwhile.borrow_mut().take();
        meanwhile.into_iter().for_each(|act| act());
        read
    }

    fn set_shared_data(&self, _key: &str, value: &[u8], version: u32) -> Change {
        let common = &self.0.common;
        if common.unchangeable.get() {
            return Change::Refused;
        }
        let present = common.value.borrow().as_ref().map(|(_, version)| *version);
        if version != 0 && present.is_some_and(|present| present != version) {
            return Change::Overtaken;
        }
        common.put(value);
        Change::Made
    }

    fn call(
        &self,
        cluster: &str,
        headers: &[(&str, &str)],
        body: Option<&[u8]>,
        _timeout: Duration,
    ) -> Option<u32> {
        if self.0.calls_fail.get() {
            return None;
        }
        let token = u32::try_from(self.0.calls.borrow().len()).unwrap() + 1;
        let headers = headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        self.0.calls.borrow_mut().push(Call {
            cluster: cluster.to_owned(),
            headers: headers.collect(),
            body: String::from_utf8(body.unwrap_or_default().to_vec()).unwrap(),
            token,
        });
        Some(token)
    }

    fn call_status(&self) -> Option<u16> {
        self.0.answer.borrow().as_ref().map(|(status, _)| *status)
    }

    fn call_body(&self, max_bytes: u32) -> Option<Vec<u8>> {
        self.0
            .answer
            .borrow()
            .as_ref()
            .map(|(_, body)| cut(body, max_bytes))
    }

    fn set_tick_period(&self, period: Duration) {
        self.0.tick_ms.set(period.as_millis());
    }

    fn define_metric(&self, _kind: MetricKind, name: &str) -> Option<u32> {
        let mut names = self.0.names.borrow_mut();
        names.push(name.to_owned());
        u32::try_from(names.len()).ok()
    }

    fn add_to_metric(&self, id: u32, amount: i64) {
        *self.0.values.borrow_mut().entry(id).or_default() += amount;
    }

    fn record_metric(&self, id: u32, value: u64) {
        self.0
            .values
            .borrow_mut()
            .insert(id, i64::try_from(value).unwrap_or(i64::MAX));
    }
}

fn cut(bytes: &[u8], max_bytes: u32) -> Vec<u8> {
    bytes.iter().copied().take(max_bytes as usize).collect()
}

impl Mock {
    /// A worker of the Envoy whose workers share this.
    pub(crate) fn sharing(common: &Rc<Common>) -> Self {
        Self(Rc::new(State {
            common: Rc::clone(common),
            ..State::default()
        }))
    }

    pub(crate) fn metric(&self, name: &str) -> i64 {
        let position = self
            .0
            .names
            .borrow()
            .iter()
            .position(|known| known == name)
            .unwrap();
        let id = u32::try_from(position).unwrap() + 1;
        self.0.values.borrow().get(&id).copied().unwrap_or_default()
    }

    pub(crate) fn last_call(&self) -> Call {
        self.0.calls.borrow().last().unwrap().clone()
    }

    /// The values of a request header, as the upstream would receive it.
    pub(crate) fn sent(&self, name: &str) -> Vec<String> {
        let request = self.0.request.borrow();
        let values = request.iter().filter(|(known, _)| known == name);
        values
            .map(|(_, value)| String::from_utf8_lossy(value).into_owned())
            .collect()
    }

    /// The cluster to which the routes of `envoy.yaml` send the request: the one that the filter named, otherwise the merger.
    pub(crate) fn cluster(&self) -> String {
        match self.sent("x-weft-cluster") {
            named if named.is_empty() => "merger".to_owned(),
            named => named.join("|"),
        }
    }

    pub(crate) fn response(&self, name: &str) -> String {
        self.0
            .response
            .borrow()
            .get(name)
            .cloned()
            .unwrap_or_default()
    }

    pub(crate) fn response_body_text(&self) -> String {
        String::from_utf8(self.0.response_body.borrow().clone()).unwrap()
    }
}

/// A filter with a table: `wide` on three shards, `tiny` on shard 2, both with direct writes; `tenants` by a field.
pub(crate) struct Filter {
    pub(crate) host: Mock,
    pub(crate) root: Root<Mock>,
}

pub(crate) fn table() -> RoutingTable {
    let wide = Arc::new(SlotMap::deal(&[ShardId(0), ShardId(1), ShardId(2)]).unwrap());
    let writable = |slots: Arc<SlotMap>| IndexRoute {
        primary_key: Some("id".to_owned()),
        direct_writes: true,
        ..IndexRoute::new(slots)
    };
    let indexes = [
        ("wide".to_owned(), writable(wide)),
        (
            "tiny".to_owned(),
            writable(Arc::new(SlotMap::single(ShardId(2)))),
        ),
        ("tenants".to_owned(), IndexRoute::new(Arc::new(by_tenant()))),
    ];
    RoutingTable {
        epoch: Epoch(7),
        origins: weft_routing::Origins::Any,
        lease_ms: 1000,
        indexes: indexes.into_iter().collect(),
    }
}

/// By the field `tenant`, on three shards.
pub(crate) fn by_tenant() -> SlotMap {
    let shards = [ShardId(0), ShardId(1), ShardId(2)];
    SlotMap::deal_by(&"field:tenant".parse().unwrap(), &shards).unwrap()
}

pub(crate) fn owner(id: &str) -> String {
    let id = DocumentId::from_text(id).unwrap();
    let owner = table().get("wide").unwrap().slots.shard_of(&id).unwrap();
    format!("shard-{owner}")
}

impl Filter {
    /// A metric as Envoy knows it after a tick.
    pub(crate) fn metric(&self, name: &str) -> i64 {
        self.root.shared().metrics.hand_over(&self.host);
        self.host.metric(name)
    }

    pub(crate) fn new() -> Self {
        Self::configured(r#"{"body_routing": true}"#)
    }

    pub(crate) fn configured(json: &str) -> Self {
        let host = Mock::default();
        let root = Root::configure(host.clone(), json.as_bytes()).unwrap();
        let mut filter = Self { host, root };
        filter.root.on_tick();
        filter.answer_poll(200, table().to_json().unwrap().as_bytes());
        filter
    }

    pub(crate) fn answer_poll(&mut self, status: u16, body: &[u8]) {
        *self.host.0.answer.borrow_mut() = Some((status, body.to_vec()));
        self.root.on_call_response(self.host.last_call().token);
    }

    /// A request with these headers, including its path and method.
    pub(crate) fn request(&self, method: &str, path: &str, more: &[(&str, &str)]) -> Request<Mock> {
        let mut all = vec![(":method", method), (":path", path)];
        all.extend(more);
        let owned = all
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()));
        *self.host.0.request.borrow_mut() = owned.collect();
        Request::new(self.root.shared())
    }

    /// The cluster that a request without a body is routed to.
    pub(crate) fn routed(&self, method: &str, path: &str, more: &[(&str, &str)]) -> String {
        let mut request = self.request(method, path, more);
        request.on_request_headers(true);
        self.host.cluster()
    }
}

//! The phases of one request: head, body, the answer's head, the answer's body, the registration.
//!
//! ```text
//! Reading ──► LookingAtBody ──► Passing            (to the merger, or a direct read)
//!    │              └─────────► Writing ──► Registering ──► Passing
//!    ├────────────────────────────┘
//!    └──────► AwaitingBody ────► Passing            (a direct read, or to the merger)
//! ```

use std::rc::Rc;
use std::time::Duration;

use weft_routing::{
    BodyFormat, Classified, Decision, Epoch, Held, Operation, RoutingTable, ShardId, classify,
    cors, decide, decide_by_body, headers, needs,
};

use crate::config::Named;
use crate::head::{Head, Headers, Trace};
use crate::host::{Host, Step};
use crate::metrics::Counter;
use crate::register::{self, NodeAnswer};
use crate::root::Shared;

/// One request in progress.
pub struct Request<H> {
    shared: Rc<Shared<H>>,
    phase: Phase,
    readers: Readers,
}

/// Which pages may read the answer.
enum Readers {
    /// As the answer itself says: nodes let every page read.
    AsAnswered,
    /// Pages of this origin, or none.
    Only(Option<String>),
}

enum Phase {
    /// Nothing has been read yet.
    Reading,
    /// The head is held until the body is complete or proves to be too large.
    LookingAtBody {
        operation: Operation,
        index: String,
        format: BodyFormat,
        /// The client's, which may add a filter to its search.
        authorization: Option<String>,
        trace: Trace,
    },
    /// A read for one shard is held until its body is complete, so that a slow client doesn't occupy a connection to a node.
    AwaitingBody {
        shard: ShardId,
        operation: Operation,
        epoch: Epoch,
    },
    /// A direct write has been sent, or its answer is being held.
    Writing {
        shard: ShardId,
        trace: Trace,
        accepted: bool,
    },
    /// The merger was asked for the cluster's task uid.
    Registering {
        token: u32,
        asked_ms: u64,
        answer: NodeAnswer,
    },
    /// Nothing more to do.
    Passing,
}

impl<H: Host> Request<H> {
    /// Creates the state of a new request.
    #[must_use]
    pub fn new(shared: Rc<Shared<H>>) -> Self {
        Self {
            shared,
            phase: Phase::Reading,
            readers: Readers::AsAnswered,
        }
    }

    /// Handles the request's head.
    pub fn on_request_headers(&mut self, end_of_stream: bool) -> Step {
        let shared = Rc::clone(&self.shared);
        let host = &shared.host;
        let first = match shared.config.headers_removed {
            true => Headers::first(host),
            false => Headers::all(host),
        };
        let head = Head::of(&first);
        self.strip(&head);
        self.phase = Phase::Passing;
        let Ok(classified) = classify(head.method, &head.path) else {
            return self.merge(None);
        };
        let table = classified.index.is_some().then(|| shared.table()).flatten();
        if table.is_none() && classified.index.is_some() {
            shared.count(Counter::TableStale);
        }
        if let Headers::All(_) = first {
            return self.decide_by_head(&classified, table, &head, end_of_stream);
        }
        let needs = needs(&classified, table.as_deref());
        let may_write = !classified.operation.is_whole_on_one_shard();
        let by_origin = table
            .as_deref()
            .is_some_and(|table| !table.origins.is_any());
        let rest = Headers::needed(host, needs, may_write, by_origin);
        self.decide_by_head(&classified, table, &Head::of(&rest), end_of_stream)
    }

    fn decide_by_head(
        &mut self,
        classified: &Classified<'_>,
        table: Option<Rc<RoutingTable>>,
        head: &Head<'_>,
        end_of_stream: bool,
    ) -> Step {
        if let Some(table) = table.as_deref().filter(|table| !table.origins.is_any()) {
            let allowed = table.origins.allow(head.origin);
            self.readers = Readers::Only(allowed.map(str::to_owned));
        }
        let operation = classified.operation;
        let policy = self.shared.config.policy();
        match decide(classified, table.as_deref(), head.facts, policy) {
            Decision::Refuse => self.refuse(),
            Decision::Merge => self.merge(Some(operation)),
            Decision::DirectRead(shard) if !end_of_stream && policy.body_routing => {
                if head.facts.body.length > Some(policy.max_body_bytes) {
                    return self.merge(Some(operation));
                }
                let epoch = table.map_or(Epoch(0), |table| table.epoch);
                self.phase = Phase::AwaitingBody {
                    shard,
                    operation,
                    epoch,
                };
                Step::Hold
            }
            Decision::DirectRead(shard) => self.read(shard, operation),
            Decision::DirectWrite(shard) => self.write(shard, operation, head.trace()),
            Decision::LookAtBody(_) if end_of_stream => self.merge(Some(operation)),
            Decision::LookAtBody(format) => {
                self.shared.count(Counter::BodyLookedAt);
                let index = classified.index.as_deref().unwrap_or_default().to_owned();
                let is_search = operation == Operation::SearchPost;
                let authorization = head.facts.authorization.filter(|_| is_search);
                self.phase = Phase::LookingAtBody {
                    operation,
                    index,
                    format,
                    authorization: authorization.map(str::to_owned),
                    trace: head.trace(),
                };
                Step::Hold
            }
        }
    }

    /// Handles more of the request's body, of which `held_bytes` are held now.
    pub fn on_request_body(&mut self, held_bytes: usize, end_of_stream: bool) -> Step {
        if !self.holds_body() {
            return Step::Continue;
        }
        let max_bytes = self.shared.config.max_body_bytes;
        let fits = u32::try_from(held_bytes).is_ok_and(|held| held <= max_bytes);
        if fits && !end_of_stream {
            return Step::Hold;
        }
        self.decide_by_body(fits)
    }

    /// Handles trailers, which end the request.
    pub fn on_request_trailers(&mut self) -> Step {
        if self.holds_body() {
            return self.decide_by_body(true);
        }
        Step::Continue
    }

    /// True if the head is held until the body is complete.
    fn holds_body(&self) -> bool {
        matches!(
            self.phase,
            Phase::LookingAtBody { .. } | Phase::AwaitingBody { .. }
        )
    }

    /// Handles the head of the answer.
    pub fn on_response_headers(&mut self, end_of_stream: bool) -> Step {
        let host = &self.shared.host;
        match &self.readers {
            Readers::AsAnswered => {}
            Readers::Only(Some(origin)) => host.set_response_header(cors::ALLOW_ORIGIN, origin),
            Readers::Only(None) => host.remove_response_header(cors::ALLOW_ORIGIN),
        }
        let Phase::Writing { accepted, .. } = &mut self.phase else {
            return Step::Continue;
        };
        let status = self.shared.host.response_header(":status");
        if status.as_deref() != Some(b"202") {
            self.phase = Phase::Passing;
            return Step::Continue;
        }
        *accepted = true;
        // The body is held together with the head, so that the status can still be changed.
        if end_of_stream {
            self.fail_registration()
        } else {
            Step::Hold
        }
    }

    /// Handles more of the answer's body, of which `held_bytes` are held now.
    pub fn on_response_body(&mut self, held_bytes: usize, end_of_stream: bool) -> Step {
        let Phase::Writing {
            shard,
            accepted: true,
            ..
        } = self.phase
        else {
            // While the registration is in progress, nothing more may pass.
            let registering = matches!(self.phase, Phase::Registering { .. });
            return if registering {
                Step::Hold
            } else {
                Step::Continue
            };
        };
        let fits = u32::try_from(held_bytes).is_ok_and(|held| held <= register::MAX_ANSWER_BYTES);
        if fits && !end_of_stream {
            return Step::Hold;
        }
        if fits {
            self.register(shard)
        } else {
            self.fail_registration()
        }
    }

    /// Handles trailers, which end the answer.
    pub fn on_response_trailers(&mut self) -> Step {
        let Phase::Writing {
            shard,
            accepted: true,
            ..
        } = self.phase
        else {
            let registering = matches!(self.phase, Phase::Registering { .. });
            return if registering {
                Step::Hold
            } else {
                Step::Continue
            };
        };
        self.register(shard)
    }

    /// Handles the merger's answer to the registration.
    pub fn on_call_response(&mut self, answered: u32) {
        let phase = std::mem::replace(&mut self.phase, Phase::Passing);
        let Phase::Registering {
            token,
            asked_ms,
            answer,
        } = phase
        else {
            self.phase = phase;
            return;
        };
        if token != answered {
            self.phase = Phase::Registering {
                token,
                asked_ms,
                answer,
            };
            return;
        }
        let Shared { host, metrics, .. } = &*self.shared;
        metrics.register_ms(host, host.now_ms().saturating_sub(asked_ms));
        let body = host
            .call_body(register::MAX_ANSWER_BYTES)
            .unwrap_or_default();
        let status = host.call_status().unwrap_or_default();
        match register::task_uid(status, &body) {
            Some(task_uid) => {
                self.shared.count(Counter::Registered);
                self.answer_with(&answer.with_task_uid(task_uid));
            }
            None => {
                self.fail_registration();
            }
        }
        self.shared.host.resume_response();
    }

    fn strip(&self, head: &Head<'_>) {
        for name in &head.forbidden {
            self.shared.count(Counter::HeaderStripped);
            self.shared.host.remove_request_header(name);
        }
    }

    fn refuse(&self) -> Step {
        self.shared.count(Counter::Refused);
        self.shared.host.respond(404);
        Step::Hold
    }

    /// Leaves the request to the merger, marked with its operation. If no header names a cluster, the route chosen first,
    /// the merger's, stays as it is: each call to Envoy costs more than everything that is decided here.
    fn merge(&self, operation: Option<Operation>) -> Step {
        self.shared.count(Counter::Merged);
        let Shared { host, config, .. } = &*self.shared;
        if let Some(operation) = operation.filter(|_| config.log_operation != Named::None) {
            host.set_request_header(headers::OPERATION, operation.name());
        }
        Step::Continue
    }

    fn read(&self, shard: ShardId, operation: Operation) -> Step {
        self.shared.count(Counter::DirectRead);
        self.route_to(shard, operation);
        Step::Continue
    }

    fn write(&mut self, shard: ShardId, operation: Operation, trace: Trace) -> Step {
        self.shared.count(Counter::DirectWrite);
        // The filter must read the answer, so it must not be compressed.
        self.shared.host.remove_request_header("accept-encoding");
        self.route_to(shard, operation);
        self.phase = Phase::Writing {
            shard,
            trace,
            accepted: false,
        };
        Step::Continue
    }

    fn route_to(&self, shard: ShardId, operation: Operation) {
        let Shared { host, config, .. } = &*self.shared;
        if config.log_operation == Named::All {
            host.set_request_header(headers::OPERATION, operation.name());
        }
        host.set_request_header(headers::CLUSTER, &config.shard_prefix.of(shard));
        if config.clear_route_cache {
            host.clear_route_cache();
        }
    }

    fn decide_by_body(&mut self, fits: bool) -> Step {
        let phase = std::mem::replace(&mut self.phase, Phase::Passing);
        if let Phase::AwaitingBody {
            shard,
            operation,
            epoch,
        } = phase
        {
            // While the body arrived, the table may have changed or expired.
            let holds = |table: Rc<RoutingTable>| table.epoch == epoch;
            return match fits && self.shared.table().is_some_and(holds) {
                true => self.read(shard, operation),
                false => self.merge(Some(operation)),
            };
        }
        let Phase::LookingAtBody {
            operation,
            index,
            format,
            authorization,
            trace,
        } = phase
        else {
            return Step::Continue;
        };
        let shared = Rc::clone(&self.shared);
        // While the body arrived, the table may have changed, so the current one is used.
        let table = shared.table();
        let route = table.as_deref().and_then(|table| table.get(&index));
        let body = fits
            .then(|| shared.host.request_body(shared.config.max_body_bytes))
            .flatten()
            .unwrap_or_default();
        if fits {
            shared
                .metrics
                .body_bytes(&shared.host, u64::try_from(body.len()).unwrap_or(u64::MAX));
        }
        let held = Held {
            operation,
            index: &index,
            format,
            authorization: authorization.as_deref(),
        };
        let decision = match route.filter(|_| !body.is_empty()) {
            Some(route) => decide_by_body(&held, route, &body),
            None => Decision::Merge,
        };
        match decision {
            Decision::DirectRead(shard) => self.read(shard, operation),
            Decision::DirectWrite(shard) => self.write(shard, operation, trace),
            _ => self.merge(Some(operation)),
        }
    }

    /// Asks the merger for the cluster's task uid.
    fn register(&mut self, shard: ShardId) -> Step {
        let phase = std::mem::replace(&mut self.phase, Phase::Passing);
        let trace = match phase {
            Phase::Writing { trace, .. } => trace,
            _ => Trace::default(),
        };
        let Shared { host, config, .. } = &*self.shared;
        let body = host
            .response_body(register::MAX_ANSWER_BYTES)
            .unwrap_or_default();
        let Some(answer) = NodeAnswer::parse(&body) else {
            return self.fail_registration();
        };
        let mut call = vec![
            (":method", "POST"),
            (":path", register::PATH),
            (":authority", config.merger_cluster.as_str()),
            ("content-type", "application/json"),
        ];
        call.extend(trace.request_id.as_deref().map(|id| ("x-request-id", id)));
        call.extend(
            trace
                .parent
                .as_deref()
                .map(|parent| ("traceparent", parent)),
        );
        let registration = answer.registration(shard);
        let timeout = Duration::from_millis(u64::from(config.register_timeout_ms));
        let sent = host.call(
            &config.merger_cluster,
            &call,
            Some(registration.as_bytes()),
            timeout,
        );
        let Some(token) = sent else {
            return self.fail_registration();
        };
        self.phase = Phase::Registering {
            token,
            asked_ms: host.now_ms(),
            answer,
        };
        Step::Hold
    }

    fn fail_registration(&mut self) -> Step {
        self.phase = Phase::Passing;
        self.shared.count(Counter::RegisterFailed);
        self.shared.host.set_response_header(":status", "503");
        self.shared
            .host
            .set_response_header("content-type", "application/json");
        self.answer_with(register::FAILURE);
        Step::Continue
    }

    fn answer_with(&self, body: &str) {
        let host = &self.shared.host;
        host.set_response_header("content-length", &body.len().to_string());
        host.replace_response_body(body.as_bytes());
    }
}

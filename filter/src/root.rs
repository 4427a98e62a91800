//! The root of a VM: reads the configuration, and keeps the routing table fresh.
//!
//! Each tick asks the merger `GET /_weft/table?epoch=<held>&changes=true`. 200 brings a new table, or what has changed since the
//! epoch that is held; 204 or 304 confirms the held one, and after any other answer the lease is left to expire. There is at most one open question. A guard asks for no table: a tick
//! only sends its figures to Envoy.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use weft_routing::table::MAX_TABLE_BYTES;
use weft_routing::{RoutingTable, TableNews};

use crate::config::{Config, Mode};
use crate::guard;
use crate::host::Host;
use crate::lease::LeasedTable;
use crate::metrics::{Counter, Metrics};

/// How long a request for the table may take. A slower merger counts as down.
const POLL_TIMEOUT: Duration = Duration::from_millis(2_000);
/// The tick period until there is a first table.
const FIRST_TICK: Duration = Duration::from_millis(20);

/// What the root and the requests of one VM share.
#[derive(Debug)]
pub struct Shared<H> {
    /// The way to Envoy.
    pub host: H,
    /// The plugin's configuration.
    pub config: Config,
    /// The metrics' ids.
    pub metrics: Metrics,
    /// The routing table.
    pub leased: RefCell<LeasedTable>,
}

impl<H: Host> Shared<H> {
    /// The routing table, unless there is none or its lease ran out.
    pub fn table(&self) -> Option<Rc<RoutingTable>> {
        self.leased.borrow().at(self.host.now_ms()).map(Rc::clone)
    }

    /// Adds one to a counter.
    pub fn count(&self, counter: Counter) {
        self.metrics.count(counter);
    }
}

/// The root.
#[derive(Debug)]
pub struct Root<H> {
    shared: Rc<Shared<H>>,
    poll: Option<Poll>,
}

/// An open question.
#[derive(Debug)]
struct Poll {
    token: u32,
    asked_ms: u64,
}

impl<H: Host> Root<H> {
    /// Creates a root with this plugin configuration; `None`, and a line in the log, if the configuration is invalid.
    pub fn configure(host: H, json: &[u8]) -> Option<Self> {
        let config = match Config::parse(json) {
            Ok(config) => config,
            Err(error) => {
                host.warn(&error.to_string());
                return None;
            }
        };
        let metrics = Metrics::define(&host);
        host.set_tick_period(match config.mode {
            Mode::Route => FIRST_TICK,
            Mode::Guard => Duration::from_millis(u64::from(config.table_poll_ms)),
        });
        let leased = RefCell::default();
        Some(Self {
            shared: Rc::new(Shared {
                host,
                config,
                metrics,
                leased,
            }),
            poll: None,
        })
    }

    /// What the requests share with the root.
    #[must_use]
    pub fn shared(&self) -> Rc<Shared<H>> {
        Rc::clone(&self.shared)
    }

    /// Sends the counts to Envoy, and asks for the table, unless a question is open.
    pub fn on_tick(&mut self) {
        let Shared {
            host,
            config,
            leased,
            metrics,
        } = &*self.shared;
        metrics.hand_over(host);
        if config.mode == Mode::Guard {
            if let Some(term) = guard::newest(host) {
                metrics.guard_term(host, term.0);
            }
            return;
        }
        let now_ms = host.now_ms();
        let timeout_ms = u64::try_from(POLL_TIMEOUT.as_millis()).unwrap_or(u64::MAX);
        // An answer arrives at the latest with the timeout. After twice that time it was lost with its context.
        if self
            .poll
            .as_ref()
            .is_some_and(|poll| now_ms < poll.asked_ms + 2 * timeout_ms)
        {
            return;
        }
        let path = match leased.borrow().epoch() {
            Some(epoch) => format!("/_weft/table?epoch={}&changes=true", epoch.0),
            None => "/_weft/table".to_owned(),
        };
        let headers = [
            (":method", "GET"),
            (":path", path.as_str()),
            (":authority", &config.merger_cluster),
        ];
        let token = host.call(&config.merger_cluster, &headers, None, POLL_TIMEOUT);
        self.poll = token.map(|token| Poll {
            token,
            asked_ms: now_ms,
        });
        if token.is_none() {
            self.failed();
        }
    }

    /// Handles the merger's answer.
    pub fn on_call_response(&mut self, token: u32) {
        let Some(poll) = self.poll.take_if(|poll| poll.token == token) else {
            return;
        };
        let Shared {
            host,
            config,
            leased,
            ..
        } = &*self.shared;
        match host.call_status() {
            Some(204 | 304) => leased
                .borrow_mut()
                .renew(poll.asked_ms, config.max_lease_ms),
            Some(200) => {
                let limit = u32::try_from(MAX_TABLE_BYTES)
                    .unwrap_or(u32::MAX)
                    .saturating_add(1);
                let json = host.call_body(limit).unwrap_or_default();
                match TableNews::from_json(&json) {
                    Ok(news) => self.take_over(news, poll.asked_ms),
                    Err(error) => {
                        host.warn(&error.to_string());
                        self.failed();
                    }
                }
            }
            _ => self.failed(),
        }
    }

    fn take_over(&self, news: TableNews, asked_ms: u64) {
        let Shared {
            host,
            config,
            leased,
            metrics,
        } = &*self.shared;
        let max_lease_ms = config.max_lease_ms;
        let epoch = match news {
            TableNews::Whole(table) => {
                // A late answer may bring an older table than the one held.
                let held = leased.borrow().epoch();
                if held.is_some_and(|held| table.epoch < held) {
                    host.warn("the merger sent an older routing table than the one held");
                    return self.failed();
                }
                let epoch = table.epoch;
                leased.borrow_mut().replace(table, asked_ms, max_lease_ms);
                epoch
            }
            TableNews::Change(change) => {
                let epoch = change.epoch;
                let changed = leased.borrow_mut().change(change, asked_ms, max_lease_ms);
                if let Err(error) = changed {
                    host.warn(&error.to_string());
                    return self.failed();
                }
                epoch
            }
        };
        metrics.table_epoch(host, epoch.0);
        self.shared.count(Counter::TableUpdated);
        host.set_tick_period(Duration::from_millis(u64::from(config.table_poll_ms)));
    }

    fn failed(&self) {
        let Shared { host, config, .. } = &*self.shared;
        self.shared.count(Counter::PollFailed);
        // A merger that isn't up yet is asked at the normal interval.
        host.set_tick_period(Duration::from_millis(u64::from(config.table_poll_ms)));
    }
}

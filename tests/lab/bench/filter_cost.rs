//! The filter's cost per request: the same Envoy in front of the same trivial upstream, with the filter and without it, in turn.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use weft_cluster::{
    Api, Binaries, ClusterPlan, Deadline, Layout, Lifetime, PortBlock, Process, until,
};

use super::load::{Load, Shot, fire};
use super::{Row, stub};

/// The path of the filter that does nothing, relative to Weft's own.
const NOOP: &str = "examples/noop.wasm";

const CLIENTS: usize = 64;
/// How many turns each of the two gets.
const TURNS: u64 = 20;

/// Envoy in front of a stub.
pub(super) struct Front {
    pub(super) envoy: Process,
    pub(super) port: u16,
    _ports: PortBlock,
    _folder: tempfile::TempDir,
}

pub(super) async fn measure(seconds: u64) -> Result<Vec<Row>> {
    let with = front(Filter::Weft, stub::READS).await?;
    let without = front(Filter::None, stub::READS).await?;
    let noop = match Filter::noop()? {
        noop if noop.is_file() => Some(front(Filter::At(noop), stub::READS).await?),
        _ => None,
    };
    let document = |port| Shot {
        port,
        method: "GET",
        path: "/indexes/x/documents/42".to_owned(),
        key: Some("any-key-of-a-usual-length".to_owned()),
        body: Bytes::new(),
    };
    let search = |port| Shot {
        method: "POST",
        path: "/indexes/x/search".to_owned(),
        body: Bytes::from_static(br#"{"q":"a search as people type it","limit":20}"#),
        ..document(port)
    };
    // The settings of an index on one shard are read from there.
    let stats = |port| Shot {
        path: "/indexes/x/stats".to_owned(),
        ..document(port)
    };
    let multi_search = |port| Shot {
        path: "/multi-search".to_owned(),
        body: Bytes::from_static(
            br#"{"queries":[{"indexUid":"x","q":"a search as people type it","limit":20}]}"#,
        ),
        ..search(port)
    };
    let mut rows = Vec::new();
    let shots: [(&str, &dyn Fn(u16) -> Shot); 4] = [
        ("GET of a document, routed by its id", &document),
        ("search of an index on one shard, routed", &search),
        ("GET that goes to the merger", &stats),
        ("multi-search, which passes the filter by", &multi_search),
    ];
    for (what, shot) in shots {
        let (mine, theirs) = by_turns(
            &shot(with.port),
            &shot(without.port),
            seconds,
            [&with.envoy, &without.envoy],
        )
        .await?;
        rows.push(
            Row::compared(
                format!("{what}: answers a second"),
                mine.load.rate(),
                theirs.load.rate(),
                "1/s",
            )
            .goal("≥ 0.85"),
        );
        rows.push(Row::compared(
            format!("{what}: Envoy's CPU"),
            mine.cpu_us(),
            theirs.cpu_us(),
            "µs a request",
        ));
    }
    if let Some(noop) = &noop {
        let (mine, theirs) = by_turns(
            &document(noop.port),
            &document(without.port),
            seconds,
            [&noop.envoy, &without.envoy],
        )
        .await?;
        let what = "for comparison, a filter that does nothing";
        rows.push(Row::compared(
            format!("{what}: answers a second"),
            mine.load.rate(),
            theirs.load.rate(),
            "1/s",
        ));
        rows.push(Row::compared(
            format!("{what}: Envoy's CPU"),
            mine.cpu_us(),
            theirs.cpu_us(),
            "µs a request",
        ));
    }
    let mib = |process: &Process| {
        process.resident_bytes().unwrap_or_default() as f64 / f64::from(1 << 20)
    };
    rows.push(Row::compared(
        "memory of Envoy (RSS)",
        mib(&with.envoy),
        mib(&without.envoy),
        "MiB",
    ));
    Ok(rows)
}

/// The filter that an Envoy runs.
pub(super) enum Filter {
    /// None.
    None,
    /// Weft's.
    Weft,
    /// Another one.
    At(PathBuf),
}

impl Filter {
    /// The filter that does nothing, which `make bench` builds.
    fn noop() -> Result<PathBuf> {
        let own = Binaries::find()?.filter;
        Ok(own.with_file_name("").join(NOOP))
    }
}

pub(super) async fn front(filter: Filter, upstream: stub::Upstream) -> Result<Front> {
    front_of(filter, upstream, 2).await
}

/// The same with so many workers.
pub(super) async fn front_of(
    filter: Filter,
    upstream: stub::Upstream,
    workers: u16,
) -> Result<Front> {
    let ports = PortBlock::claim(11)?;
    let layout = Layout::new(ports.base(), 1, 1)?;
    let folder = tempfile::tempdir()?;
    stub::serve(layout.merger(), upstream).await?;
    stub::serve(layout.node(0, 0), upstream).await?;
    let mut binaries = Binaries::find()?;
    if let Filter::At(path) = &filter {
        binaries.filter.clone_from(path);
    }
    let plan = ClusterPlan {
        watched: None,
        binaries,
        layout,
        folder: folder.path().to_owned(),
        master_key: None,
        filter: !matches!(filter, Filter::None),
        body_routing: true,
        access_log: "off",
        merger_environment: Vec::new(),
        envoy_arguments: Vec::new(),
        edit_envoy: None,
        behind_links: None,
        guards: false,
        sockets: None,
        etcd_syncs: false,
        etcd_tls: None,
    };
    let mut program = plan.envoy(0)?;
    let mut arguments = program.arguments.iter_mut();
    if arguments.any(|argument| *argument == "--concurrency")
        && let Some(count) = arguments.next()
    {
        *count = workers.to_string().into();
    }
    let envoy = Process::start(program, Lifetime::WithUs)?;
    let edge = Api::new(format!("http://127.0.0.1:{}", layout.edge()), None);
    until(
        "an answer through Envoy",
        Deadline::after(Duration::from_secs(30)),
        || async {
            match edge.get("/indexes/x/documents/42").await {
                Ok(reply) if reply.status == 200 => Ok(()),
                Ok(reply) => Err(format!("status {}", reply.status)),
                Err(error) => Err(error.to_string()),
            }
        },
    )
    .await?;
    // After one more poll, every worker's filter has its table.
    tokio::time::sleep(Duration::from_secs(2)).await;
    Ok(Front {
        envoy,
        port: layout.edge(),
        _ports: ports,
        _folder: folder,
    })
}

/// A load, and the processor time that it cost Envoy.
#[derive(Default)]
struct Cost {
    load: Load,
    cpu: Duration,
}

impl Cost {
    fn cpu_us(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.load.answers().max(1) as f64
    }
}

async fn by_turns(
    one: &Shot,
    two: &Shot,
    seconds: u64,
    envoys: [&Process; 2],
) -> Result<(Cost, Cost)> {
    let (mut first, mut second) = (Cost::default(), Cost::default());
    let turn = seconds as f64 / TURNS as f64;
    for _ in 0..TURNS {
        for (shot, cost, envoy) in [(one, &mut first, envoys[0]), (two, &mut second, envoys[1])] {
            let before = cpu_time(envoy)?;
            let load = fire(shot, CLIENTS, turn).await?;
            cost.cpu += cpu_time(envoy)?.saturating_sub(before);
            cost.load = std::mem::take(&mut cost.load).and(load);
        }
    }
    Ok((first, second))
}

/// The processor time that a process has used, from `/proc/<pid>/stat` in hundredths of a second.
fn cpu_time(process: &Process) -> Result<Duration> {
    let id = process.id().context("Envoy has ended")?;
    let stat = fs::read_to_string(format!("/proc/{id}/stat"))?;
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks: u64 = after_name
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<u64>().ok())
        .sum();
    Ok(Duration::from_millis(ticks * 10))
}

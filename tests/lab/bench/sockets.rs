//! Searches through an Envoy and a merger that reach each other over Unix sockets, compared with two that do over TCP.

use anyhow::Result;
use weft_cluster::data::DataSet;
use weft_cluster::{Api, Cluster, Sockets};

use super::Row;
use super::fan_out::{KEY, fill};
use super::load::{Load, fire};
use super::usage::Usage;
use super::way::{self, Kind};

/// How many turns each of the two gets.
const TURNS: u64 = 8;

/// A load, and what it cost Envoy and the merger.
#[derive(Default)]
struct Cost {
    load: Load,
    used: Usage,
}

impl Cost {
    fn of_each(&self) -> Usage {
        self.used.for_each(self.load.answers().max(1) as f64)
    }
}

pub(super) async fn measure(seconds: u64) -> Result<Vec<Row>> {
    let clusters = [
        way::start(Some(Sockets::BesideTcp)).await?,
        way::start(None).await?,
    ];
    let set = DataSet::movies()?;
    for cluster in &clusters {
        let api = Api::new(cluster.url(), Some(KEY));
        fill(&api, &set).await?;
        fill(&api, &way::large()).await?;
    }
    let mut rows = Vec::new();
    for kind in way::searches(set.index) {
        for clients in [1, 8] {
            compare(&clusters, &kind, clients, seconds, &mut rows).await?;
        }
    }
    Ok(rows)
}

async fn compare(
    clusters: &[Cluster; 2],
    kind: &Kind,
    clients: usize,
    seconds: u64,
    rows: &mut Vec<Row>,
) -> Result<()> {
    let mut costs: [Cost; 2] = Default::default();
    let turn = seconds as f64 / TURNS as f64;
    for _ in 0..TURNS {
        for (cluster, cost) in clusters.iter().zip(&mut costs) {
            let between = [cluster.envoy(), cluster.merger()];
            let before = Usage::of(between)?;
            let load = fire(&kind.shot(cluster.layout().edge()), clients, turn).await?;
            cost.used = cost.used + (Usage::of(between)? - before);
            cost.load = std::mem::take(&mut cost.load).and(load);
        }
    }
    let [sockets, tcp] = costs;
    let (each, of_tcp) = (sockets.of_each(), tcp.of_each());
    let name = format!("{}, {clients} client(s)", kind.what);
    for (what, value, reference, unit) in [
        (
            "median",
            sockets.load.quantile_ms(0.5),
            tcp.load.quantile_ms(0.5),
            "ms",
        ),
        ("answers", sockets.load.rate(), tcp.load.rate(), "1/s"),
        (
            "processor time of Envoy and merger",
            each.cpu_us,
            of_tcp.cpu_us,
            "µs",
        ),
        ("their wakeups", each.wakeups, of_tcp.wakeups, ""),
    ] {
        let what = format!("{name}: {what}");
        rows.push(Row::compared(what, value, reference, unit));
    }
    Ok(())
}

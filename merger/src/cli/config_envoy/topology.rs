//! What an `envoy.yaml` is made from: addresses, shards, nodes and the filter, all checked here once.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use weft_routing::ShardNames;

use super::address::{Address, AddressError};
use super::arguments::EnvoyArgs;
use super::tls::Tls;
use crate::sockets::{SocketMode, SocketPath, SocketPathError};

/// A cluster as Envoy needs to know it.
///
/// Invariants: at least one shard, numbered from 0 without gaps; each with at least one node; no address used twice;
/// every listening address is an IP, and so is every node's that
/// stands in a file with endpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topology {
    /// The address for clients.
    pub edge: Address,
    /// Envoy's admin interface.
    pub admin: Address,
    /// The address at which the merger reaches the nodes.
    pub egress: Address,
    /// The address of the merger.
    pub merger: Address,
    /// The address for health checks. Needed only if the merger is a DNS name, because a check's address must be an IP, or is
    /// reached by TLS, which checks that share a cluster with nodes don't speak.
    pub readiness: Option<Address>,
    /// The sockets between Envoy and the merger, if they use any instead of their addresses.
    pub sockets: Option<Sockets>,
    /// True if other Envoys have mergers of their own, which write as well.
    pub several_mergers: bool,
    /// Mergers that answer this Envoy's clients while its own is gone.
    pub other_mergers: Vec<Address>,
    /// The filter on the edge listener, if any.
    pub filter: Option<Filter>,
    /// Which requests the edge logs.
    pub access_log: AccessLog,
    /// Where Envoy's spans go, if anywhere.
    pub tracing: Option<Tracing>,
    /// Which ways are encrypted.
    pub tls: Option<Tls>,
    /// The names of the shards' clusters.
    pub shard_names: ShardNames,
    /// The shards, in the order of their numbers.
    pub shards: Vec<Shard>,
    /// Where Envoy finds the shards, if that isn't the `envoy.yaml` itself.
    pub dynamic: Option<Dynamic>,
}

/// The Unix sockets between Envoy and the merger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sockets {
    /// The one on which the merger listens.
    pub merger: SocketPath,
    /// The one of the egress listener.
    pub egress: SocketPath,
    /// Who may connect to the egress listener's.
    pub mode: SocketMode,
}

impl Sockets {
    fn in_folder(folder: &Path, mode: SocketMode) -> Result<Self, SocketPathError> {
        Ok(Self {
            merger: folder.join("merger.sock").try_into()?,
            egress: folder.join("egress.sock").try_into()?,
            mode,
        })
    }
}

/// The folder with files that Envoy watches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dynamic {
    /// Its path, as Envoy knows it.
    pub folder: PathBuf,
    /// The spare nodes, if each shard's nodes are in a file of their own; else `None`.
    pub spares: Option<Vec<Node>>,
}

impl Dynamic {
    /// The path of a file in the folder, as Envoy knows it.
    pub fn path(&self, file: &str) -> String {
        self.folder.join(file).display().to_string()
    }
}

/// One shard: an Envoy cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shard {
    /// Its number, which is part of its cluster's name.
    pub number: u16,
    /// Its replicas.
    pub nodes: Vec<Node>,
}

impl Shard {
    /// Where its nodes are.
    pub(super) fn addresses(&self) -> impl Iterator<Item = &Address> {
        self.nodes.iter().map(|node| &node.address)
    }
}

/// One node: an endpoint of its shard's cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// The endpoint's host name. The merger knows the node by this name, even if its address changes.
    pub name: String,
    /// The node's address.
    pub address: Address,
}

/// Envoy's traces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tracing {
    /// The collector.
    pub collector: Address,
    /// How many of a million requests that belong to no trace begin one.
    pub millionths: u32,
}

/// The filter's settings in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// The path of the wasm file on Envoy's machine.
    pub wasm: PathBuf,
    /// True if the filter looks for document ids in small bodies.
    pub body_routing: bool,
}

/// Which requests the edge listener logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AccessLog {
    /// Every request.
    All,
    /// Every request, and what Weft did with it: operation, index, shards, directly or merged.
    Detailed,
    /// Answers of 500 and above, and what took a second or more.
    Failed,
    /// Nothing.
    Off,
}

/// Options that contradict each other.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopologyError {
    /// `--shards 0` or `--replicas 0`.
    #[error("a cluster needs at least one shard, and a shard one node")]
    Empty,
    /// `--node` skipped a number.
    #[error("shards are numbered from 0 without gaps: shard {0} has no --node")]
    MissingShard(u16),
    /// `--port` is too high for the ports that are counted up from it.
    #[error("--port {port} leaves no room for {needed} ports below 65536")]
    PortRange {
        /// The base port.
        port: u16,
        /// How many ports are counted up from it.
        needed: u32,
    },
    /// `--node-host` doesn't give a valid address.
    #[error("--node-host: {0}")]
    NodeHost(#[from] AddressError),
    /// An address at which Envoy must listen is a name.
    #[error("--{option} {address}: Envoy listens on IP addresses only")]
    ListenOnName {
        /// The option.
        option: &'static str,
        /// Its value.
        address: String,
    },
    /// The address of a node is a name, and Envoy resolves none there.
    #[error(
        "--eds: Envoy resolves no names in files with endpoints: {node} needs an IP address, not {address}"
    )]
    NodeByName {
        /// The node.
        node: String,
        /// Its address.
        address: String,
    },
    /// The folder of `--sockets` has no place for them.
    #[error("--sockets: {0}")]
    Sockets(#[from] SocketPathError),
    /// Envoy resolves names only in clusters without sockets.
    #[error(
        "--sockets: Envoy resolves no names beside a socket: --other-merger needs an IP address, not {0}"
    )]
    MergerByName(String),
    /// Two parts have the same address.
    #[error("{address} is used twice: by {first} and by {second}")]
    Twice {
        /// The address.
        address: String,
        /// The part that had it first.
        first: String,
        /// The part that uses it again.
        second: String,
    },
}

/// The distance of the first node's port from the base port. The ports between are for Envoy's listeners and the merger.
const NODE_PORTS: u32 = 10;

impl TryFrom<&EnvoyArgs> for Topology {
    type Error = TopologyError;

    fn try_from(arguments: &EnvoyArgs) -> Result<Self, Self::Error> {
        let shards = if arguments.nodes.is_empty() {
            counted(arguments)?
        } else {
            listed(arguments)?
        };
        let local = |offset: u32| -> Result<Address, TopologyError> {
            Ok(Address::new("127.0.0.1", port_at(arguments.port, offset)?)?)
        };
        let or_local = |given: &Option<Address>, offset: u32| match given {
            Some(address) => Ok(address.clone()),
            None => local(offset),
        };
        let merger = or_local(&arguments.merger, 3)?;
        let in_folder = |folder: &PathBuf| Sockets::in_folder(folder, arguments.socket_mode);
        let sockets = arguments.sockets.as_ref().map(in_folder).transpose()?;
        let tls = Tls::of(&arguments.tls);
        let topology = Self {
            edge: or_local(&arguments.edge, 0)?,
            admin: or_local(&arguments.admin, 1)?,
            egress: or_local(&arguments.egress, 2)?,
            readiness: if merger.is_ip() && !tls.as_ref().is_some_and(Tls::is_for_mergers) {
                None
            } else {
                Some(or_local(&arguments.readiness, 4)?)
            },
            merger,
            sockets,
            several_mergers: arguments.several_mergers,
            other_mergers: arguments.other_mergers.clone(),
            filter: (!arguments.no_filter).then(|| Filter {
                wasm: arguments.wasm.clone(),
                body_routing: arguments.body_routing,
            }),
            access_log: arguments.access_log,
            tracing: arguments.otlp_tracing.clone().map(|collector| Tracing {
                collector,
                millionths: arguments.otlp_sampling,
            }),
            tls,
            shard_names: arguments.shard_prefix.clone(),
            shards,
            dynamic: arguments.dynamic.clone().map(|folder| Dynamic {
                folder,
                spares: arguments.eds.then(|| spares(arguments)),
            }),
        };
        topology.check()?;
        Ok(topology)
    }
}

impl Topology {
    fn check(&self) -> Result<(), TopologyError> {
        let listeners = [
            ("edge", Some(&self.edge)),
            ("admin", Some(&self.admin)),
            ("egress", self.sockets.is_none().then_some(&self.egress)),
            ("readiness", self.readiness.as_ref()),
        ];
        let mut seen: HashMap<&Address, String> = HashMap::new();
        for (option, address) in listeners
            .into_iter()
            .filter_map(|(option, address)| Some((option, address?)))
        {
            if !address.is_ip() {
                return Err(TopologyError::ListenOnName {
                    option,
                    address: address.to_string(),
                });
            }
            take(&mut seen, address, option.to_owned())?;
        }
        if self.sockets.is_none() {
            take(&mut seen, &self.merger, "the merger".to_owned())?;
        }
        for other in &self.other_mergers {
            if self.sockets.is_some() && !other.is_ip() {
                return Err(TopologyError::MergerByName(other.to_string()));
            }
            take(&mut seen, other, "another merger".to_owned())?;
        }
        if let Some(tracing) = &self.tracing {
            take(&mut seen, &tracing.collector, "the collector".to_owned())?;
        }
        let spares = self.dynamic.as_ref().and_then(|it| it.spares.as_ref());
        let nodes = self.shards.iter().flat_map(|shard| &shard.nodes);
        for node in nodes.chain(spares.into_iter().flatten()) {
            take(&mut seen, &node.address, node.name.clone())?;
            if spares.is_some() && !node.address.is_ip() {
                return Err(TopologyError::NodeByName {
                    node: node.name.clone(),
                    address: node.address.to_string(),
                });
            }
        }
        Ok(())
    }
}

pub(super) fn take<'a>(
    seen: &mut HashMap<&'a Address, String>,
    address: &'a Address,
    by: String,
) -> Result<(), TopologyError> {
    match seen.get(address) {
        Some(first) => Err(TopologyError::Twice {
            address: address.to_string(),
            first: first.clone(),
            second: by,
        }),
        None => {
            seen.insert(address, by);
            Ok(())
        }
    }
}

/// `--shards`, `--replicas`, `--node-host`.
fn counted(arguments: &EnvoyArgs) -> Result<Vec<Shard>, TopologyError> {
    if arguments.shards == 0 || arguments.replicas == 0 {
        return Err(TopologyError::Empty);
    }
    let needs_ports = arguments.node_host.contains("{port}");
    (0..arguments.shards)
        .map(|number| {
            let nodes = (0..arguments.replicas)
                .map(|replica| {
                    let offset = NODE_PORTS
                        + u32::from(number) * u32::from(arguments.replicas)
                        + u32::from(replica);
                    let mut host = arguments
                        .node_host
                        .replace("{shard}", &number.to_string())
                        .replace("{replica}", &replica.to_string());
                    if needs_ports {
                        host =
                            host.replace("{port}", &port_at(arguments.port, offset)?.to_string());
                    }
                    Ok(Node {
                        name: node_name(number, replica.into()),
                        address: host.parse()?,
                    })
                })
                .collect::<Result<_, TopologyError>>()?;
            Ok(Shard { number, nodes })
        })
        .collect()
}

/// `--node`, repeated.
fn listed(arguments: &EnvoyArgs) -> Result<Vec<Shard>, TopologyError> {
    let mut shards: BTreeMap<u16, Vec<Node>> = BTreeMap::new();
    for node in &arguments.nodes {
        let nodes = shards.entry(node.shard).or_default();
        nodes.push(Node {
            name: node_name(node.shard, nodes.len()),
            address: node.address.clone(),
        });
    }
    shards
        .into_iter()
        .zip(0..)
        .map(|((number, nodes), expected)| {
            if number == expected {
                Ok(Shard { number, nodes })
            } else {
                Err(TopologyError::MissingShard(expected))
            }
        })
        .collect()
}

/// `--spare`, repeated.
fn spares(arguments: &EnvoyArgs) -> Vec<Node> {
    let spares = arguments.spares.iter().enumerate();
    let node = |(number, address): (usize, &Address)| Node {
        name: format!("spare-node-{number}"),
        address: address.clone(),
    };
    spares.map(node).collect()
}

fn node_name(shard: u16, replica: usize) -> String {
    format!("shard-{shard}-node-{replica}")
}

fn port_at(base: u16, offset: u32) -> Result<u16, TopologyError> {
    u16::try_from(u32::from(base) + offset).map_err(|_| TopologyError::PortRange {
        port: base,
        needed: offset + 1,
    })
}

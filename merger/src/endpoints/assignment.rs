//! The content of a file with endpoints: an Envoy `DiscoveryResponse` with one `ClusterLoadAssignment`.
//!
//! What a file has beside that (locality, weights, metadata) stays as it is: an operator may write these files, too.

use std::net::IpAddr;

use serde_json::{Map, Value, json};

/// A node in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Its name: Envoy's host name for it.
    pub name: String,
    /// Where it listens. Envoy resolves no names in such files.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
}

impl Endpoint {
    fn socket(&self) -> Value {
        json!({"socket_address": {"address": self.address.to_string(), "port_value": self.port}})
    }
}

/// Whom Envoy asks whether a node may serve reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check<'a> {
    /// Somebody at this address and port.
    At(&'a str, u16),
    /// Somebody on the Unix socket of this path.
    Socket(&'a str),
}

impl Check<'_> {
    fn address(self) -> Value {
        match self {
            Self::At(address, port) => {
                json!({"socket_address": {"address": address, "port_value": port}})
            }
            Self::Socket(path) => json!({"pipe": {"path": path}}),
        }
    }
}

/// A file is not what Envoy reads.
#[derive(Debug, thiserror::Error)]
pub enum UnreadableFile {
    /// It is no JSON.
    #[error("it is no JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// It has no endpoints.
    #[error("it has no `resources` with `endpoints`")]
    NoEndpoints,
}

/// The endpoints of one cluster, as they stand in a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Assignment(Value);

impl Assignment {
    /// A cluster's first file. Without `check`, the cluster's health check asks the node itself.
    pub fn new(cluster: &str, endpoints: &[Endpoint], check: Option<Check<'_>>) -> Self {
        let endpoints: Vec<Value> = endpoints
            .iter()
            .map(|endpoint| {
                let mut fields = json!({"address": endpoint.socket(), "hostname": endpoint.name});
                if let (Some(check), Some(fields)) = (check, fields.as_object_mut()) {
                    let check = json!({"hostname": endpoint.name, "address": check.address()});
                    fields.insert("health_check_config".to_owned(), check);
                }
                json!({"endpoint": fields})
            })
            .collect();
        Self(json!({
            "version_info": "0",
            "resources": [{
                "@type": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
                "cluster_name": cluster,
                // A replica that is indexing or slow gets reads only where no other is healthy.
                "policy": {"overprovisioning_factor": 100_000},
                "endpoints": [{"lb_endpoints": endpoints}],
            }],
        }))
    }

    /// Reads a file.
    ///
    /// # Errors
    /// It is not what Envoy reads.
    pub fn parse(text: &[u8]) -> Result<Self, UnreadableFile> {
        let read = Self(serde_json::from_slice(text)?);
        match read.0.pointer("/resources/0/endpoints") {
            Some(Value::Array(_)) => Ok(read),
            _ => Err(UnreadableFile::NoEndpoints),
        }
    }

    /// The file's text.
    pub fn text(&self) -> String {
        format!("{:#}\n", self.0)
    }

    /// The number of the last change that the merger made, or saw that it is not to be made here.
    pub fn version(&self) -> u64 {
        let version = self.0.get("version_info").and_then(Value::as_str);
        version.and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    /// Sets that number.
    pub fn set_version(&mut self, version: u64) {
        if let Some(fields) = self.0.as_object_mut() {
            fields.insert("version_info".to_owned(), version.to_string().into());
        }
    }

    /// The nodes' names, in the file's order.
    pub fn names(&self) -> Vec<String> {
        let localities = self.0.pointer("/resources/0/endpoints");
        let localities = localities.and_then(Value::as_array).into_iter().flatten();
        let hosts = localities.filter_map(|locality| locality.get("lb_endpoints")?.as_array());
        hosts.flatten().filter_map(name).collect()
    }

    /// Puts a node in the place of the first one that has one of these names; the others go. False if there is none, or if the
    /// node is there already and none was to go.
    pub fn replace(&mut self, old: &[&str], new: &Endpoint) -> bool {
        let mut is_here = self.names().contains(&new.name);
        let mut changed = false;
        for hosts in self.hosts() {
            hosts.retain_mut(|host| {
                if !name(host).is_some_and(|name| old.contains(&name.as_str()) && name != new.name)
                {
                    return true;
                }
                changed = true;
                let stays = !std::mem::replace(&mut is_here, true);
                if stays
                    && let Some(fields) = host.get_mut("endpoint").and_then(Value::as_object_mut)
                {
                    become_another(fields, new);
                }
                stays
            });
        }
        changed
    }

    /// Takes a node out. False if it isn't there.
    pub fn remove(&mut self, gone: &str) -> bool {
        let mut changed = false;
        for hosts in self.hosts() {
            hosts.retain(|host| {
                let goes = name(host).is_some_and(|name| name == gone);
                changed |= goes;
                !goes
            });
        }
        changed
    }

    fn hosts(&mut self) -> impl Iterator<Item = &mut Vec<Value>> {
        let localities = self.0.pointer_mut("/resources/0/endpoints");
        let localities = localities
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten();
        localities.filter_map(|locality| locality.get_mut("lb_endpoints")?.as_array_mut())
    }
}

/// The name of a node as the merger knows it: the host name or, where it has none, its address.
fn name(host: &Value) -> Option<String> {
    let endpoint = host.get("endpoint")?;
    match endpoint.get("hostname").and_then(Value::as_str) {
        Some(name) if !name.is_empty() => Some(name.to_owned()),
        _ => {
            let socket = endpoint.pointer("/address/socket_address")?;
            let address: IpAddr = socket.get("address")?.as_str()?.parse().ok()?;
            let port = u16::try_from(socket.get("port_value")?.as_u64()?).ok()?;
            Some(std::net::SocketAddr::new(address, port).to_string())
        }
    }
}

/// Everything about the place stays, and another node stands in it. Its health check still goes to the merger, about the new one.
fn become_another(fields: &mut Map<String, Value>, new: &Endpoint) {
    fields.insert("address".to_owned(), new.socket());
    fields.insert("hostname".to_owned(), new.name.clone().into());
    let check = fields.get_mut("health_check_config");
    if let Some(check) = check.and_then(Value::as_object_mut) {
        check.insert("hostname".to_owned(), new.name.clone().into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(name: &str, port: u16) -> Endpoint {
        Endpoint {
            name: name.to_owned(),
            address: IpAddr::from([127, 0, 0, 1]),
            port,
        }
    }

    fn shard() -> Assignment {
        let nodes = [endpoint("a", 1), endpoint("b", 2)];
        Assignment::new("shard-0", &nodes, Some(Check::At("127.0.0.1", 7703)))
    }

    #[test]
    fn what_is_written_is_read_again() {
        let file = shard();
        assert_eq!(file.names(), ["a", "b"]);
        assert_eq!(file.version(), 0);
        assert_eq!(Assignment::parse(file.text().as_bytes()).unwrap(), file);
        for text in ["", "{}", r#"{"resources": [{}]}"#, "resources: []"] {
            assert!(Assignment::parse(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn a_spare_stands_in_the_place_of_the_node_that_went_and_its_check_goes_to_the_merger() {
        let mut file = shard();
        assert!(file.replace(&["gone", "a"], &endpoint("s", 9)));
        assert_eq!(file.names(), ["s", "b"]);
        let place = file
            .0
            .pointer("/resources/0/endpoints/0/lb_endpoints/0/endpoint");
        let check = json!({"hostname": "s", "address": {"socket_address": {"address": "127.0.0.1", "port_value": 7703}}});
        let socket = json!({"socket_address": {"address": "127.0.0.1", "port_value": 9}});
        let wanted = json!({"address": socket, "hostname": "s", "health_check_config": check});
        assert_eq!(place, Some(&wanted));
        assert!(
            !file.replace(&["a"], &endpoint("s", 9)),
            "nothing is left to do"
        );
        assert_eq!(file.names(), ["s", "b"]);
    }

    #[test]
    fn a_node_is_never_there_twice() {
        let mut file = shard();
        assert!(file.replace(&["a"], &endpoint("b", 2)));
        assert_eq!(file.names(), ["b"]);
        let mut file = shard();
        assert!(file.replace(&["a", "b"], &endpoint("s", 9)));
        assert_eq!(file.names(), ["s"]);
        // It had the place before, and gets it again.
        assert!(file.replace(&["a", "s"], &endpoint("a", 1)));
        assert!(!file.replace(&["a", "s"], &endpoint("a", 1)));
        assert_eq!(file.names(), ["a"]);
    }

    #[test]
    fn what_an_operator_wrote_beside_it_stays() {
        let mut value = shard().0;
        let lines = "/resources/0/endpoints/0";
        *value
            .pointer_mut(lines)
            .unwrap()
            .as_object_mut()
            .unwrap()
            .entry("priority")
            .or_insert(json!(0)) = json!(1);
        value["resources"][0]["endpoints"][0]["lb_endpoints"][0]["load_balancing_weight"] =
            json!(3);
        let mut file = Assignment(value);
        file.set_version(7);
        assert!(file.replace(&["a"], &endpoint("s", 9)) && file.remove("b") && !file.remove("b"));
        assert_eq!(file.version(), 7);
        assert_eq!(
            file.0.pointer("/resources/0/endpoints/0/priority"),
            Some(&json!(1))
        );
        let weight = "/resources/0/endpoints/0/lb_endpoints/0/load_balancing_weight";
        assert_eq!(file.0.pointer(weight), Some(&json!(3)));
    }

    #[test]
    fn a_node_without_a_name_is_known_by_its_address() {
        let mut file = Assignment::new("spare", &[endpoint("", 7), endpoint("s", 9)], None);
        assert_eq!(file.names(), ["127.0.0.1:7", "s"]);
        assert!(file.remove("127.0.0.1:7"));
        assert_eq!(file.names(), ["s"]);
    }
}

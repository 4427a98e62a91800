//! What replacements mean for one of Envoy's files. Pure.
//!
//! A file carries the number of the last replacement that it has (`version_info`). So each is made in it once: an operator who
//! gives a node its place back, and leaves the number as it is, is not overruled.

use weft_routing::placement::ShardId;

use crate::cluster::Replacement;
use crate::endpoints::{Assignment, Endpoint};

/// Which file it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The nodes of a shard.
    Shard(ShardId),
    /// The spare nodes.
    Spare,
}

/// Makes in a file all replacements that it hasn't; the file has the newest number then. False if it had them all.
pub(super) fn bring_up_to_date(file: &mut Assignment, kind: Kind, all: &[Replacement]) -> bool {
    let has = file.version();
    let mut newest = has;
    for one in all.iter().filter(|one| one.number > has) {
        match kind {
            Kind::Shard(shard) if shard == one.shard => {
                let names: Vec<&str> = one.names.iter().map(|name| name.as_str()).collect();
                file.replace(&names, &endpoint(one));
            }
            Kind::Shard(_) => continue,
            Kind::Spare => {
                file.remove(one.spare.as_str());
            }
        }
        newest = one.number;
    }
    file.set_version(newest);
    newest > has
}

fn endpoint(one: &Replacement) -> Endpoint {
    Endpoint {
        name: one.spare.as_str().to_owned(),
        address: one.address.ip(),
        port: one.address.port(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::clock::now_utc;
    use crate::cluster::NodeId;

    fn replacement(number: u64, shard: u16, names: &[&str], spare: &str) -> Replacement {
        let names = names.iter().map(|name| NodeId::from((*name).to_owned()));
        Replacement {
            number,
            shard: ShardId(shard),
            names: names.collect(),
            spare: NodeId::from(spare.to_owned()),
            address: ([127, 0, 0, 1], 9).into(),
            since: now_utc(),
            taking: true,
        }
    }

    fn file(names: &[&str]) -> Assignment {
        let endpoint = |name: &&str| Endpoint {
            name: (*name).to_owned(),
            address: IpAddr::from([127, 0, 0, 1]),
            port: 1,
        };
        let endpoints: Vec<Endpoint> = names.iter().map(endpoint).collect();
        Assignment::new("x", &endpoints, None)
    }

    const SHARD: Kind = Kind::Shard(ShardId(0));

    #[test]
    fn a_file_gets_each_replacement_once() {
        let all = [
            replacement(1, 0, &["a"], "s"),
            replacement(2, 1, &["b"], "t"),
        ];
        let mut shard = file(&["a", "b"]);
        assert!(bring_up_to_date(&mut shard, SHARD, &all));
        assert_eq!(
            (shard.names(), shard.version()),
            (vec!["s".to_owned(), "b".to_owned()], 1)
        );
        assert!(!bring_up_to_date(&mut shard, SHARD, &all));
        let mut spare = file(&["s", "t", "u"]);
        assert!(bring_up_to_date(&mut spare, Kind::Spare, &all));
        assert_eq!((spare.names(), spare.version()), (vec!["u".to_owned()], 2));
    }

    #[test]
    fn what_an_operator_changes_afterwards_stays() {
        let all = [replacement(1, 0, &["a"], "s")];
        let mut shard = file(&["a"]);
        bring_up_to_date(&mut shard, SHARD, &all);
        let mut back = file(&["a"]);
        back.set_version(shard.version());
        assert!(!bring_up_to_date(&mut back, SHARD, &all));
        assert_eq!(back.names(), ["a"]);
    }

    #[test]
    fn a_file_that_missed_some_ends_as_the_others() {
        // The place of `a` went to `s`, and then to `t`; that of `b` to `u`.
        let all = [
            replacement(2, 0, &["a", "s"], "t"),
            replacement(3, 0, &["b"], "u"),
        ];
        for before in [["a", "b"], ["s", "b"], ["t", "b"]] {
            let mut shard = file(&before);
            assert!(bring_up_to_date(&mut shard, SHARD, &all));
            assert_eq!(shard.names(), ["t", "u"], "{before:?}");
        }
    }
}

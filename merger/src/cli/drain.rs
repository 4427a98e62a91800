//! `weft drain` and `weft resume`: take a node or a shard out of use, and back.

use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Value, json};

use super::ask::{AskError, AskOptions, Outcome, confirm};
use super::rebalance::{Then, follow};
use super::remote::Remote;
use super::words::{encoded, holds, list, text};

/// What is drained.
#[derive(Debug, Clone, Subcommand)]
pub(super) enum Drain {
    /// A node: it gets no reads and no writes, so that it can be stopped, until it is resumed.
    #[command(after_help = "\
Example, to upgrade a node:
  weft drain node shard-0-node-1     then stop it, start the new version on its data, and
  weft resume node shard-0-node-1

Refused if no other replica of its shard is in sync and answers.")]
    Node(NodeArgs),
    /// A shard: its slots go to the others, and it gets no new indexes, so that it can be removed.
    #[command(after_help = "\
Example, to shrink the cluster:
  weft drain shard shard-3 --wait    when `weft shards` says removable, take it out of Envoy's configuration

`weft resume shard` takes it back.")]
    Shard(DrainShardArgs),
}

/// What is resumed.
#[derive(Debug, Clone, Subcommand)]
pub(super) enum Resume {
    /// A node: it catches up and serves again.
    #[command(after_help = "\
Examples:
  weft resume node shard-0-node-1
  weft resume node shard-0-node-1 --accept-deletions

--accept-data-loss is for a shard whose replicas are all out of sync or lost. What this node lacks is lost then.")]
    Node(ResumeNodeArgs),
    /// A shard: it may hold indexes again. What has left it comes back with the next rebalance.
    Shard(ShardArgs),
}

/// Options for a node.
#[derive(Debug, Clone, Args)]
pub(super) struct NodeArgs {
    /// The node's id, as `weft nodes` shows it.
    #[arg(value_name = "NODE")]
    pub node: String,
    #[command(flatten)]
    pub ask: AskOptions,
}

/// Options for a shard.
#[derive(Debug, Clone, Args)]
pub(super) struct ShardArgs {
    /// The shard: `shard-3`, or 3.
    #[arg(value_name = "SHARD")]
    pub shard: String,
    #[command(flatten)]
    pub ask: AskOptions,
}

/// Options of `weft drain shard`.
#[derive(Debug, Clone, Args)]
pub(super) struct DrainShardArgs {
    #[command(flatten)]
    pub shard: ShardArgs,
    /// Return when the shard is empty.
    #[arg(long)]
    pub wait: bool,
}

/// Options of `weft resume node`.
#[derive(Debug, Clone, Args)]
pub(super) struct ResumeNodeArgs {
    #[command(flatten)]
    pub node: NodeArgs,
    /// Its resync may delete what it stopped at.
    #[arg(long)]
    pub accept_deletions: bool,
    /// It serves with what it has, and the shard's other replicas are made like it. Asks first.
    #[arg(long)]
    pub accept_data_loss: bool,
    /// Don't ask.
    #[arg(long, short, requires = "accept_data_loss")]
    pub yes: bool,
}

impl Drain {
    /// Where the cluster is, and how the answer is shown.
    pub(super) fn ask(&self) -> &AskOptions {
        match self {
            Self::Node(node) => &node.ask,
            Self::Shard(shard) => &shard.shard.ask,
        }
    }
}

impl Resume {
    /// Where the cluster is, and how the answer is shown.
    pub(super) fn ask(&self) -> &AskOptions {
        match self {
            Self::Node(node) => &node.node.ask,
            Self::Shard(shard) => &shard.ask,
        }
    }
}

/// Drains.
pub(super) async fn drain(what: &Drain, remote: Remote) -> Result<Outcome, AskError> {
    match what {
        Drain::Node(arguments) => {
            let path = format!("/_cluster/nodes/{}/drain", encoded(&arguments.node));
            let answer = remote.call(Method::POST, &path, None).await?;
            Ok(Outcome::of(&arguments.ask, &answer, true, |_| {
                drained(&answer)
            }))
        }
        Drain::Shard(arguments) => {
            let ShardArgs { shard, ask } = &arguments.shard;
            let path = format!("/_cluster/shards/{}/drain", encoded(shard));
            let begun = remote.call(Method::POST, &path, None).await?;
            let then = match arguments.wait {
                true => Then::Wait,
                false => Then::Show,
            };
            follow(&remote, ask, begun, then).await
        }
    }
}

fn drained(node: &Value) -> String {
    let id = text(node, "id");
    format!(
        "{id} is {}: it gets no reads and no writes until `weft resume node {id}`\n",
        text(node, "status")
    )
}

/// Resumes.
pub(super) async fn resume(what: &Resume, remote: Remote) -> Result<Outcome, AskError> {
    match what {
        Resume::Node(arguments) => {
            let NodeArgs { node, ask } = &arguments.node;
            if arguments.accept_data_loss {
                let question = format!(
                    "What {node} lacks is lost, if no other replica of its shard is in sync. Go on?"
                );
                confirm(&question, arguments.yes, "leave --accept-data-loss out")?;
            }
            let path = format!("/_cluster/nodes/{}/resume", encoded(node));
            let answer = remote.post(&path, &wish(arguments)).await?;
            Ok(Outcome::of(ask, &answer, true, |_| resumed(&answer)))
        }
        Resume::Shard(arguments) => {
            let path = format!("/_cluster/shards/{}/drain", encoded(&arguments.shard));
            let answer = remote.call(Method::DELETE, &path, None).await?;
            Ok(Outcome::of(&arguments.ask, &answer, true, |_| {
                taken_back(&answer)
            }))
        }
    }
}

fn wish(arguments: &ResumeNodeArgs) -> Value {
    json!({
        "acceptDeletions": arguments.accept_deletions,
        "acceptDataLoss": arguments.accept_data_loss,
    })
}

fn resumed(node: &Value) -> String {
    let id = text(node, "id");
    match holds(node, "inSync") {
        true => format!("{id} is {} and in sync\n", text(node, "status")),
        false => format!(
            "{id} is {} and catches up: weft nodes\n",
            text(node, "status")
        ),
    }
}

fn taken_back(shard: &Value) -> String {
    let number = super::words::number(shard, "shardId");
    let replicas = list(shard, "inSync").len();
    format!(
        "shard {number} may hold indexes again ({replicas} in sync): weft rebalance gives it its share\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(subcommand)]
        resume: Resume,
    }

    #[test]
    fn what_an_operator_accepts_is_said_and_nothing_else() {
        let parse = |line: &str| Command::try_parse_from(line.split(' '));
        let Resume::Node(plain) = parse("weft node a").unwrap().resume else {
            panic!("a node");
        };
        assert_eq!(
            wish(&plain),
            json!({"acceptDeletions": false, "acceptDataLoss": false})
        );
        let Resume::Node(all) = parse("weft node a --accept-data-loss --accept-deletions -y")
            .unwrap()
            .resume
        else {
            panic!("a node");
        };
        assert_eq!(
            wish(&all),
            json!({"acceptDeletions": true, "acceptDataLoss": true})
        );
        assert!(parse("weft node a --yes").is_err());
        assert!(parse("weft shard").is_err());
    }

    #[test]
    fn the_answer_says_what_comes_next() {
        let node = json!({"id": "a", "status": "drained", "inSync": false});
        assert_eq!(
            drained(&node),
            "a is drained: it gets no reads and no writes until `weft resume node a`\n"
        );
        let node = json!({"id": "a", "status": "up", "inSync": false});
        assert_eq!(resumed(&node), "a is up and catches up: weft nodes\n");
    }
}

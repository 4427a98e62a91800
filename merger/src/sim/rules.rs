//! Lets a test decide the fate of certain requests, wherever in the merger they are sent, and records all requests.

use serde_json::Value;

use super::api::Asked;
use super::world::Merger;

/// The fate of a request.
#[derive(Debug, Clone)]
pub(super) enum What {
    /// The code that sends it panics.
    Panics,
    /// It doesn't reach the node.
    Unreachable,
    /// The answer is this one, whatever the node has.
    Says(u16, Value),
}

struct Rule {
    node: &'static str,
    /// The beginning of the method and path.
    begin: &'static str,
    left: usize,
    what: What,
}

/// The rules of a test.
#[derive(Default)]
pub(super) struct Rules {
    rules: Vec<Rule>,
    heard: Option<Vec<String>>,
}

impl Rules {
    /// Adds a rule for the next `times` requests to nodes whose names begin with `node`, with a method and path that begin with `begin`.
    pub(super) fn add(
        &mut self,
        node: &'static str,
        begin: &'static str,
        times: usize,
        what: What,
    ) {
        self.rules.push(Rule {
            node,
            begin,
            left: times,
            what,
        });
    }

    /// Removes all rules.
    pub(super) fn end(&mut self) {
        self.rules.clear();
    }

    /// How many more requests the rules apply to.
    pub(super) fn left(&self) -> usize {
        self.rules.iter().map(|rule| rule.left).sum()
    }

    /// All requests since the last call: node, method and path without its query.
    pub(super) fn heard(&mut self) -> Vec<String> {
        self.heard.replace(Vec::new()).unwrap_or_default()
    }

    pub(super) fn apply(&mut self, node: &str, asked: &Asked) -> Option<What> {
        let request = format!("{} {}", asked.method, asked.path_and_query);
        if let Some(heard) = &mut self.heard {
            let path = request.split('?').next().unwrap_or_default();
            heard.push(format!("{node} {path}"));
        }
        let rule = self.rules.iter_mut().find(|rule| {
            rule.left > 0 && node.starts_with(rule.node) && request.starts_with(rule.begin)
        })?;
        rule.left -= 1;
        Some(rule.what.clone())
    }
}

impl Merger {
    /// Adds a [rule](Rules::add).
    pub(super) fn rule(&self, node: &'static str, begin: &'static str, times: usize, what: What) {
        let mut state = self.world.mesh.lock();
        state.rules.add(node, begin, times, what);
    }
}

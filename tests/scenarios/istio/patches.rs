//! What istiod does with an EnvoyFilter, as far as the chart uses it (`pilot/pkg/networking/core/envoyfilter`).

use serde_json::Value;

use super::manifests::Manifests;

/// The patches for one proxy, in the order in which they are applied.
#[derive(Debug)]
pub(super) struct Patches<'a> {
    context: &'static str,
    patches: Vec<(&'a Value, bool)>,
}

impl<'a> Patches<'a> {
    /// The patches that select a component's proxies, which have this context.
    pub(super) fn of(manifests: &'a Manifests, component: &str, context: &'static str) -> Self {
        let filters =
            manifests.selecting("EnvoyFilter", "/spec/workloadSelector/labels", component);
        let patches =
            filters.flat_map(|filter| filter["spec"]["configPatches"].as_array().unwrap());
        let patches = patches.map(|patch| (patch, false)).collect();
        Self { context, patches }
    }

    /// The values of the patches that add something of this kind.
    pub(super) fn added(&mut self, kind: &str) -> Vec<Value> {
        let mut values = Vec::new();
        self.each(kind, "ADD", |patch| {
            values.push(patch["patch"]["value"].clone());
            true
        });
        values
    }

    /// Applies to a listener of this port all that concerns it, its filters and its routes.
    pub(super) fn apply_to_listener(&mut self, listener: &mut Value, port: u64) {
        let here = |patch: &Value| patch["match"]["listener"]["portNumber"] == port;
        self.each("LISTENER", "MERGE", |patch| {
            here(patch) && merge(listener, &patch["patch"]["value"])
        });
        let chains = listener["filter_chains"].as_array_mut().unwrap();
        for filter in chains
            .iter_mut()
            .flat_map(|chain| chain["filters"].as_array_mut().unwrap())
        {
            self.each("NETWORK_FILTER", "MERGE", |patch| {
                let name = &patch["match"]["listener"]["filterChain"]["filter"]["name"];
                here(patch) && *name == filter["name"] && merge(filter, &patch["patch"]["value"])
            });
            self.apply_to_http_filters(&mut filter["typed_config"]["http_filters"], here);
            let hosts = &mut filter["typed_config"]["route_config"]["virtual_hosts"];
            for host in hosts.as_array_mut().unwrap() {
                self.each("VIRTUAL_HOST", "MERGE", |patch| {
                    let routes = &patch["match"]["routeConfiguration"];
                    routes["portNumber"] == port && merge(host, &patch["patch"]["value"])
                });
            }
        }
    }

    fn apply_to_http_filters(&mut self, filters: &mut Value, here: impl Fn(&Value) -> bool) {
        let filters = filters.as_array_mut().unwrap();
        let place = |patch: &Value, filters: &[Value]| {
            let name = &patch["match"]["listener"]["filterChain"]["filter"]["subFilter"]["name"];
            filters.iter().position(|filter| filter["name"] == *name)
        };
        self.each("HTTP_FILTER", "INSERT_BEFORE", |patch| {
            let found = place(patch, filters).filter(|_| here(patch));
            if let Some(found) = found {
                filters.insert(found, patch["patch"]["value"].clone());
            }
            found.is_some()
        });
        self.each("HTTP_FILTER", "MERGE", |patch| {
            let found = place(patch, filters).filter(|_| here(patch));
            found.is_some_and(|found| merge(&mut filters[found], &patch["patch"]["value"]))
        });
    }

    /// Hands each patch of this kind and operation to `apply`, which says whether it fitted.
    fn each(&mut self, kind: &str, operation: &str, mut apply: impl FnMut(&Value) -> bool) {
        for (patch, applied) in &mut self.patches {
            let fits = patch["applyTo"] == kind
                && patch["patch"]["operation"] == operation
                && patch["match"]["context"] == self.context;
            *applied |= fits && apply(patch);
        }
    }

    /// # Panics
    /// A patch found nothing to change: in a mesh it would be silently without effect.
    pub(super) fn assert_all_applied(&self) {
        for (patch, applied) in &self.patches {
            assert!(applied, "this patch has no effect: {patch}");
        }
    }
}

/// Istio's merge of two messages: members that are set replace, lists are appended to. Always true.
///
/// # Panics
/// A default value (`false`, `0`) is to replace another one. Protocol buffers don't tell it from a member that isn't set, so
/// Istio would leave the old one.
pub(super) fn merge(into: &mut Value, from: &Value) -> bool {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (name, value) in from {
                assert!(
                    *value != Value::Bool(false) && value.as_u64() != Some(0),
                    "{name} can't be merged: {value}"
                );
                match into.get_mut(name) {
                    Some(old) => {
                        merge(old, value);
                    }
                    None => {
                        into.insert(name.clone(), value.clone());
                    }
                }
            }
        }
        (Value::Array(into), Value::Array(from)) => into.extend(from.iter().cloned()),
        (into, from) => *into = from.clone(),
    }
    true
}

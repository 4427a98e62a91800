//! envoy/istio: what Helm makes of the chart, whether Kubernetes and Istio would take it, and how a cluster behaves with the
//! Envoy configuration that Istio would make of it.
//!
//! There is no Istio here. [`translate`] does what istiod does with these manifests, as far as they use it, and refuses what it
//! doesn't know; real Envoys run the outcome.

mod driven;
mod identity;
mod image;
mod manifests;
mod mesh;
mod patches;
mod refused;
mod translate;
mod valid;

pub(crate) use manifests::tool;

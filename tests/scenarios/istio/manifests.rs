//! The chart's manifests.

use std::path::PathBuf;
use std::process::{Command, Output};

use serde::Deserialize;
use serde_json::Value;

/// The release and the namespace that all tests use.
pub(super) const RELEASE: &str = "weft";
pub(super) const NAMESPACE: &str = "search";

/// The chart.
pub(super) const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../envoy/istio");

/// A tool that `make packaging` fetches.
///
/// # Panics
/// It isn't there.
pub(crate) fn tool(path: &str) -> PathBuf {
    let tool = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).join(path);
    assert!(
        tool.is_file(),
        "{} is missing: `make packaging` fetches it",
        tool.display()
    );
    tool
}

/// Runs Helm on the chart.
pub(super) fn helm(arguments: &[&str]) -> Output {
    Command::new(tool(".weft/packaging/helm"))
        .args(arguments)
        // Nobody's own settings or repositories.
        .envs(
            ["HELM_CONFIG_HOME", "HELM_CACHE_HOME", "HELM_DATA_HOME"]
                .map(|name| (name, "/nonexistent")),
        )
        .output()
        .unwrap()
}

/// All manifests of one rendering.
#[derive(Debug, Clone)]
pub(super) struct Manifests(Vec<Value>);

impl Manifests {
    /// What `helm template` prints with these values.
    pub(super) fn render(values: &[&str]) -> Self {
        let mut arguments = vec!["template", RELEASE, CHART, "--namespace", NAMESPACE];
        arguments.extend(values.iter().flat_map(|value| ["--set", *value]));
        let output = helm(&arguments);
        assert!(
            output.status.success(),
            "{values:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Self::parse(&String::from_utf8(output.stdout).unwrap())
    }

    /// The documents of a YAML file.
    pub(super) fn parse(text: &str) -> Self {
        let documents = serde_yaml::Deserializer::from_str(text);
        let values = documents.map(|document| Value::deserialize(document).unwrap());
        Self(values.filter(|value| !value.is_null()).collect())
    }

    pub(super) fn of_kind<'a>(&'a self, kind: &str) -> impl Iterator<Item = &'a Value> {
        self.0
            .iter()
            .filter(move |manifest| manifest["kind"] == kind)
    }

    pub(super) fn named(&self, kind: &str, name: &str) -> &Value {
        self.of_kind(kind)
            .find(|manifest| manifest["metadata"]["name"] == name)
            .unwrap_or_else(|| panic!("there is no {kind} {name}"))
    }

    /// The pods' template of a component: of the first StatefulSet or Deployment whose pods bear its label.
    pub(super) fn template(&self, component: &str) -> &Value {
        ["StatefulSet", "Deployment"]
            .into_iter()
            .flat_map(|kind| self.of_kind(kind))
            .map(|manifest| &manifest["spec"]["template"])
            .find(|template| {
                template["metadata"]["labels"]["app.kubernetes.io/component"] == component
            })
            .unwrap_or_else(|| panic!("no pods are called {component}"))
    }

    /// The manifests of a kind that select a component's pods, by the labels at this pointer.
    pub(super) fn selecting<'a>(
        &'a self,
        kind: &str,
        labels_at: &str,
        component: &str,
    ) -> impl Iterator<Item = &'a Value> {
        let pod = self.template(component)["metadata"]["labels"].clone();
        self.of_kind(kind).filter(move |manifest| {
            let labels = manifest.pointer(labels_at).and_then(Value::as_object);
            let labels = labels.unwrap_or_else(|| panic!("{manifest} selects everything"));
            labels.iter().all(|(name, value)| pod[name] == *value)
        })
    }

    /// Where a volume is mounted in a container of a component's pods; in Istio's own sidecar, by what an annotation asks for.
    pub(super) fn mounts(&self, component: &str, container: &str, volume: &str) -> Option<String> {
        let template = self.template(component);
        let containers = template["spec"]["containers"].as_array()?;
        let Some(container) = containers.iter().find(|one| one["name"] == container) else {
            let annotations = &template["metadata"]["annotations"];
            let parsed = |name: &str| -> Option<Value> {
                serde_json::from_str(annotations[format!("sidecar.istio.io/{name}")].as_str()?).ok()
            };
            assert!(parsed("userVolume")?[volume].is_object(), "{volume}");
            let path = parsed("userVolumeMount")?[volume]["mountPath"].clone();
            return path.as_str().map(str::to_owned);
        };
        let volumes = template["spec"]["volumes"].as_array()?;
        assert!(volumes.iter().any(|one| one["name"] == volume), "{volume}");
        let mounts = container["volumeMounts"].as_array()?;
        let mount = mounts.iter().find(|one| one["name"] == volume)?;
        mount["mountPath"].as_str().map(str::to_owned)
    }

    /// A variable of the merger's container.
    pub(super) fn merger_variable(&self, component: &str, name: &str) -> Option<String> {
        let containers = self.template(component)["spec"]["containers"].as_array();
        let merger = containers?.iter().find(|one| one["name"] == "merger")?;
        let variables = merger["env"].as_array()?;
        let variable = variables.iter().find(|one| one["name"] == name)?;
        variable["value"].as_str().map(str::to_owned)
    }
}

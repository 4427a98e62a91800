//! envoy/observability: alert rules and dashboards, by promtool and by a real Prometheus that watches a real cluster; and the
//! linters of the files around them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;
use weft_cluster::{
    Api, Binaries, Cluster, Deadline, Lifetime, PortBlock, Process, Program, until,
};

use crate::istio::tool;
use crate::support::{MASTER_KEY, documents, start};

/// What a client whose requests are traced says.
const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const TOP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(TOP).join(path)).expect(path)
}

/// A program of Prometheus; none on a machine where it could not be fetched, which `make prometheus` says.
fn prometheus(program: &str) -> Option<PathBuf> {
    let path = Path::new(TOP)
        .join(".weft/prometheus/usr/bin")
        .join(program);
    if !path.is_file() {
        eprintln!("there is no {program} here: `make prometheus` fetches it");
        return None;
    }
    Some(path)
}

fn promtool(arguments: &[&str]) -> Option<Output> {
    let mut command = Command::new(prometheus("promtool")?);
    let folder = Path::new(TOP).join("envoy/observability");
    Some(
        command
            .args(arguments)
            .current_dir(folder)
            .output()
            .unwrap(),
    )
}

fn assert_succeeds(output: &Output) {
    let text =
        [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned());
    assert!(output.status.success(), "{}", text.concat());
}

#[test]
fn each_alert_fires_when_it_should_and_not_before() {
    let Some(checked) = promtool(&["check", "rules", "alerts.yaml"]) else {
        return;
    };
    assert_succeeds(&checked);
    assert_succeeds(&promtool(&["test", "rules", "alerts_test.yaml"]).unwrap());
}

/// All rules of the file.
fn rules() -> Vec<Value> {
    let rules: Value = serde_yaml::from_str(&read("envoy/observability/alerts.yaml")).unwrap();
    rules["groups"][0]["rules"].as_array().unwrap().clone()
}

#[test]
fn each_alert_has_a_test_and_a_row_in_the_runbook() {
    let tests = read("envoy/observability/alerts_test.yaml");
    let readme = read("merger/README.md");
    let runbook = readme
        .split("## Runbook")
        .nth(1)
        .unwrap()
        .split("\n## ")
        .next()
        .unwrap();
    for rule in rules() {
        let name = rule["alert"].as_str().unwrap();
        assert!(tests.contains(name), "{name} has no test");
        let annotations = &rule["annotations"];
        assert_eq!(
            annotations["runbook_url"], "merger/README.md#runbook",
            "{name}"
        );
        let symptom = annotations["symptom"].as_str().unwrap();
        let row = |line: &str| line.starts_with(&format!("| {symptom}"));
        assert!(
            runbook.lines().any(row),
            "{name}: the runbook has no row for {symptom}"
        );
    }
}

/// Title and expression of everything on the dashboard.
fn panels() -> Vec<(String, String)> {
    let board: Value =
        serde_json::from_str(&read("envoy/observability/dashboards/weft.json")).unwrap();
    let panels = board["panels"].as_array().unwrap().iter();
    let targets = panels.flat_map(|panel| {
        let title = panel["title"].as_str().unwrap().to_owned();
        let targets = panel["targets"].as_array().cloned().unwrap_or_default();
        targets
            .into_iter()
            .map(move |target| (title.clone(), target["expr"].as_str().unwrap().to_owned()))
    });
    targets.collect()
}

#[test]
fn panels_of_the_dashboard_do_not_overlap() {
    let board: Value =
        serde_json::from_str(&read("envoy/observability/dashboards/weft.json")).unwrap();
    let panels = board["panels"].as_array().unwrap();
    let mut taken = std::collections::BTreeSet::new();
    let mut ids = std::collections::BTreeSet::new();
    for panel in panels {
        let at = |name: &str| panel["gridPos"][name].as_u64().unwrap();
        assert!(at("x") + at("w") <= 24, "{panel}");
        for x in at("x")..at("x") + at("w") {
            for y in at("y")..at("y") + at("h") {
                assert!(
                    taken.insert((x, y)),
                    "{} overlaps another panel",
                    panel["title"]
                );
            }
        }
        assert!(ids.insert(panel["id"].as_u64().unwrap()));
    }
}

/// What Prometheus is told of an Alertmanager at this port.
fn alerting(port: u16) -> String {
    format!(
        "alerting:\n  alertmanagers:\n    - static_configs:\n        - targets: [127.0.0.1:{port}]\n"
    )
}

/// What it needs of its package is looked for in one folder of the system, where it isn't: it is unpacked and not installed.
const WITH_ITS_OWN_FILES: &str = r#"mount --bind "$1" /usr/share; shift; exec "$@""#;

/// Starts an Alertmanager that tells nobody.
fn manage_alerts(program: PathBuf, cluster: &Cluster, port: u16) -> Process {
    let folder = cluster.folder().join("alertmanager");
    fs::create_dir_all(&folder).unwrap();
    let file = folder.join("alertmanager.yaml");
    let nobody = "route: { receiver: nobody }\nreceivers: [{ name: nobody }]\n";
    fs::write(&file, nobody).unwrap();
    let top = Path::new(TOP).canonicalize().unwrap();
    let arguments = [
        "--map-root-user".to_owned(),
        "--mount".to_owned(),
        "sh".to_owned(),
        "-ec".to_owned(),
        WITH_ITS_OWN_FILES.to_owned(),
        "sh".to_owned(),
        top.join(".weft/prometheus/usr/share").display().to_string(),
        program.canonicalize().unwrap().display().to_string(),
        format!("--config.file={}", file.display()),
        format!("--storage.path={}", folder.join("data").display()),
        format!("--web.listen-address=127.0.0.1:{port}"),
        // There is one of it.
        "--cluster.listen-address=".to_owned(),
    ];
    let program = Program {
        name: "alertmanager".to_owned(),
        executable: "unshare".into(),
        arguments: arguments.into_iter().map(Into::into).collect(),
        environment: Vec::new(),
        folder,
        log: cluster.folder().join("logs/alertmanager.log"),
    };
    Process::start(program, Lifetime::WithUs).unwrap()
}

/// The alerts that Alertmanager would tell somebody of, by name.
async fn told(alertmanager: &Api) -> Result<Vec<String>, String> {
    let answer = alertmanager.get("/api/v2/alerts?active=true").await;
    let answer = answer.map_err(|error| error.line())?;
    let alerts: Vec<Value> = serde_json::from_str(&answer.text).map_err(|_| answer.text)?;
    let name = |alert: &Value| {
        alert["labels"]["alertname"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    Ok(alerts.iter().map(name).collect())
}

/// Starts Prometheus with the committed configuration, at this cluster's addresses.
fn watch(program: PathBuf, cluster: &Cluster, port: u16, alertmanager: u16) -> Process {
    let rules = Path::new(TOP).join("envoy/observability/alerts.yaml");
    watch_by(program, cluster, port, alertmanager, &rules)
}

/// The same with other rules.
fn watch_by(
    program: PathBuf,
    cluster: &Cluster,
    port: u16,
    alertmanager: u16,
    rules: &Path,
) -> Process {
    let folder = cluster.folder().join("prometheus");
    fs::create_dir_all(&folder).unwrap();
    let layout = cluster.layout();
    let configuration = read("envoy/observability/prometheus.yaml")
        .replace("127.0.0.1:7701", &format!("127.0.0.1:{}", layout.admin()))
        .replace("127.0.0.1:7703", &format!("127.0.0.1:{}", layout.merger()))
        .replace("/etc/prometheus/alerts.yaml", &rules.display().to_string())
        .replace("_interval: 10s", "_interval: 1s")
        + &alerting(alertmanager);
    let file = folder.join("prometheus.yaml");
    fs::write(&file, configuration).unwrap();
    let arguments = [
        format!("--config.file={}", file.display()),
        format!("--storage.tsdb.path={}", folder.join("data").display()),
        format!("--web.listen-address=127.0.0.1:{port}"),
        "--enable-feature=exemplar-storage".to_owned(),
    ];
    let program = Program {
        name: "prometheus".to_owned(),
        executable: program,
        arguments: arguments.into_iter().map(Into::into).collect(),
        environment: Vec::new(),
        folder,
        log: cluster.folder().join("logs/prometheus.log"),
    };
    Process::start(program, Lifetime::WithUs).unwrap()
}

/// The number of series that an expression gives.
async fn series(prometheus: &Api, expression: &str) -> Result<usize, String> {
    let mut url = reqwest::Url::parse("http://x/api/v1/query").unwrap();
    url.query_pairs_mut().append_pair("query", expression);
    let path = format!("{}?{}", url.path(), url.query().unwrap());
    let answer = prometheus.get(&path).await.map_err(|error| error.line())?;
    match answer.at("/data/result").as_array() {
        Some(result) if answer.at("/status") == "success" => Ok(result.len()),
        _ => Err(answer.text),
    }
}

/// A backup of the cluster into a folder; whether it was made.
fn back_up(cluster: &Cluster, folder: &Path) -> bool {
    let mut command = Command::new(Binaries::find().unwrap().weft);
    command.arg("backup").arg(folder);
    command.args(["--json", "--url", &cluster.url()]);
    command.env("WEFT_MASTER_KEY", MASTER_KEY);
    command.output().unwrap().status.success()
}

#[tokio::test]
async fn a_real_prometheus_has_alerts_for_backups_that_fail_or_are_not_made() {
    let Some(program) = prometheus("prometheus") else {
        return;
    };
    let (cluster, api) = start(Cluster::builder().shards(1).replicas(1)).await;
    let (port, alerts) = (PortBlock::claim(1).unwrap(), PortBlock::claim(1).unwrap());
    // A day is too long for a test.
    let rules = cluster.folder().join("alerts.yaml");
    let hours = "> 26 * 3600\n        for: 1m";
    let text = read("envoy/observability/alerts.yaml");
    assert!(text.contains(hours));
    fs::write(&rules, text.replace(hours, "> 30")).unwrap();
    let process = watch_by(program, &cluster, port.base(), alerts.base(), &rules);
    let prometheus = Api::new(format!("http://127.0.0.1:{}", port.base()), None);
    let firing = |name: &str| format!("ALERTS{{alertname=\"{name}\", alertstate=\"firing\"}}");
    let wait_for = async |expression: String| {
        let deadline = Deadline::after(Duration::from_secs(60));
        until(&expression, deadline, || async {
            match series(&prometheus, &expression).await? {
                0 => Err("no series".to_owned()),
                _ => Ok(()),
            }
        })
        .await
        .unwrap();
    };
    // Without any backup nobody is called.
    wait_for("weft_merger_jobs{kind=\"backup\"} == 0".to_owned()).await;
    assert_eq!(series(&prometheus, &firing("WeftBackupOld")).await, Ok(0));

    let added = api.post("/indexes/x/documents", &documents(0..20)).await;
    api.succeed(&added.unwrap()).await.unwrap();
    let folder = cluster.folder().join("backup");
    assert!(back_up(&cluster, &folder));
    let listed = api.get("/_cluster/jobs").await.unwrap();
    let job = listed.at("/jobs/0");
    assert_eq!(job["kind"], "backup", "{}", listed.text);
    assert_eq!(job["state"], "done", "{}", listed.text);
    assert_eq!(job["documents"], 20, "{}", listed.text);
    assert!(job["bytes"].as_u64() > Some(20 * 20), "{}", listed.text);
    wait_for("weft_merger_job_documents_total{kind=\"backup\"} == 20".to_owned()).await;
    wait_for("weft_merger_backup_pause_seconds_count > 0".to_owned()).await;
    for name in ["WeftJobFailed", "WeftBackupOld"] {
        assert_eq!(series(&prometheus, &firing(name)).await, Ok(0), "{name}");
    }
    // The next one doesn't find what it expects in its folder.
    fs::write(folder.join("manifest.json"), "{}").unwrap();
    assert!(!back_up(&cluster, &folder));
    wait_for(firing("WeftJobFailed")).await;
    let listed = api.get("/_cluster/jobs").await.unwrap();
    assert!(
        listed.at("/last/backup/error").is_string(),
        "{}",
        listed.text
    );
    // And none follows.
    wait_for(firing("WeftBackupOld")).await;
    // When the last good one was is known after a restart, too.
    let success = listed.at("/last/backup/success").clone();
    assert!(success.is_string(), "{}", listed.text);
    cluster.merger().kill().unwrap();
    cluster.merger().restart().unwrap();
    cluster.wait_ready().await.unwrap();
    let listed = api.get("/_cluster/jobs").await.unwrap();
    assert_eq!(*listed.at("/last/backup/success"), success);
    process.kill().unwrap();
}

#[tokio::test]
async fn a_real_prometheus_has_an_answer_for_every_panel_and_an_alert_for_a_dead_node() {
    let Some(program) = prometheus("prometheus") else {
        return;
    };
    let Some(alertmanager) = prometheus("prometheus-alertmanager") else {
        return;
    };
    let (cluster, api) = start(Cluster::builder().shards(2).replicas(2)).await;
    let (port, alerts) = (PortBlock::claim(1).unwrap(), PortBlock::claim(1).unwrap());
    let manager = manage_alerts(alertmanager, &cluster, alerts.base());
    let alertmanager = Api::new(format!("http://127.0.0.1:{}", alerts.base()), None);
    let process = watch(program, &cluster, port.base(), alerts.base());
    let prometheus = Api::new(format!("http://127.0.0.1:{}", port.base()), None);
    // Everything must have happened at least once since Prometheus looks: rates need two samples.
    let deadline = Deadline::after(Duration::from_secs(90));
    until("an answer for every panel", deadline, || async {
        let answer = api
            .post("/indexes/wide/documents", &documents(0..3))
            .await
            .unwrap();
        api.succeed(&answer).await.unwrap();
        let headers = [("traceparent", TRACEPARENT)];
        let search = "/indexes/wide/search?q=amber";
        let searched = api.send("GET".parse().unwrap(), search, &headers, Vec::new());
        searched.await.unwrap();
        api.get("/indexes/wide/documents/1").await.unwrap();
        assert!(back_up(&cluster, &cluster.folder().join("backup")));
        let mut empty = Vec::new();
        for (title, expression) in panels() {
            let expression = expression.replace("$__rate_interval", "10s");
            if series(&prometheus, &expression).await? == 0 {
                empty.push(format!("{title}: {expression}"));
            }
        }
        match empty.is_empty() {
            true => Ok(()),
            false => Err(empty.join("\n")),
        }
    })
    .await
    .unwrap();
    // The trace of the searches is an exemplar.
    let range = "start=0&end=4102444800&query=weft_merger_request_seconds_bucket";
    let exemplars = prometheus
        .get(&format!("/api/v1/query_exemplars?{range}"))
        .await;
    let exemplars = exemplars.unwrap().text;
    assert!(exemplars.contains(&TRACEPARENT[3..35]), "{exemplars}");
    // No alert so far; with all of a shard's nodes dead, there is one after its half minute.
    let firing = r#"ALERTS{alertname="WeftShardWithoutReplica", alertstate="firing"}"#;
    assert_eq!(series(&prometheus, firing).await, Ok(0));
    assert_eq!(told(&alertmanager).await, Ok(Vec::new()));
    for replica in 0..2 {
        cluster.node(1, replica).kill().unwrap();
    }
    let deadline = Deadline::after(Duration::from_secs(90));
    until("the alert", deadline, || async {
        match series(&prometheus, firing).await? {
            1 => Ok(()),
            other => Err(format!("{other} alerts")),
        }
    })
    .await
    .unwrap();
    until("Alertmanager to hear of it", deadline, || async {
        let told = told(&alertmanager).await?;
        match told.iter().any(|name| name == "WeftShardWithoutReplica") {
            true => Ok(()),
            false => Err(format!("{told:?}")),
        }
    })
    .await
    .unwrap();
    process.kill().unwrap();
    manager.kill().unwrap();
}

fn assert_clean(program: &str, arguments: &[&str]) {
    let linter = tool(&format!(".weft/packaging/venv/bin/{program}"));
    let output = Command::new(linter)
        .args(arguments)
        .current_dir(TOP)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success() && text.is_empty(),
        "{program}: {text}"
    );
}

#[test]
fn linters_find_nothing_in_yaml_dockerfile_and_scripts() {
    let yaml = [
        "docker-compose.yml",
        "envoy/docker-compose.ha.yml",
        "envoy/docker-compose.tracing.yml",
        "envoy/envoy.yaml",
        "envoy/observability",
        "envoy/gateway",
        "envoy/istio/values.yaml",
        "envoy/istio/Chart.yaml",
    ];
    assert_clean(
        "yamllint",
        &[&["--strict", "--format", "parsable"][..], &yaml[..]].concat(),
    );
    assert_clean("hadolint", &["merger/Dockerfile"]);
    assert_clean("shellcheck", &["envoy/oci.sh"]);
}

//! The members of etcd that several mergers share, and what they say about who leads.

use std::ffi::OsString;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::Client;
use serde_json::{Value, json};

use crate::{Binaries, ClusterPlan, HarnessError, Program};

/// The key that names the leader, with the mergers' default prefix.
const LEADER: &str = "/weft/leader";

/// How long a member may take for an answer. Without a quorum there is none.
const PATIENCE: Duration = Duration::from_secs(1);

/// The command of a member of etcd.
pub(crate) fn member(plan: &ClusterPlan, member: u16) -> Result<Program, HarnessError> {
    let scheme = plan.etcd_scheme();
    let url = |port: u16| format!("{scheme}://127.0.0.1:{port}");
    let layout = plan.layout;
    let name = layout.etcd_name(member);
    let (clients, members) = layout.etcd(member);
    let all: Vec<String> = (0..layout.etcd_members())
        .map(|member| {
            format!(
                "{}={}",
                layout.etcd_name(member),
                url(layout.etcd(member).1)
            )
        })
        .collect();
    let folder = plan.folder.join("data").join(&name);
    let mut arguments: Vec<OsString> = vec!["--data-dir".into(), folder.join("state").into()];
    for (flag, value) in [
        ("--name", name.clone()),
        ("--listen-client-urls", url(clients)),
        ("--advertise-client-urls", url(clients)),
        ("--listen-peer-urls", url(members)),
        ("--initial-advertise-peer-urls", url(members)),
        ("--initial-cluster", all.join(",")),
        ("--logger", "zap".to_owned()),
    ] {
        arguments.extend([flag.into(), value.into()]);
    }
    if let Some([certificate, key, authority]) = &plan.etcd_tls {
        for (flags, file) in [
            (["--cert-file", "--peer-cert-file"], certificate),
            (["--key-file", "--peer-key-file"], key),
            (["--trusted-ca-file", "--peer-trusted-ca-file"], authority),
        ] {
            for flag in flags {
                arguments.extend([flag.into(), file.into()]);
            }
        }
        arguments.extend([
            "--client-cert-auth".into(),
            "--peer-client-cert-auth".into(),
        ]);
    }
    if !plan.etcd_syncs {
        // Here processes are killed, and not machines.
        arguments.push("--unsafe-no-fsync".into());
    }
    Ok(Program {
        executable: Binaries::etcd()?,
        arguments,
        environment: Vec::new(),
        folder,
        log: plan.folder.join("logs").join(format!("{name}.log")),
        name,
    })
}

/// The address of the merger that holds the leader's key, as any of these members knows it; `None` if nobody holds it.
///
/// # Errors
/// No member answers.
pub(crate) async fn leader(
    client: &Client,
    ports: impl Iterator<Item = u16>,
) -> Result<Option<String>, String> {
    let mut errors = Vec::new();
    for port in ports {
        match ask(client, port).await {
            Ok(leader) => return Ok(leader),
            Err(error) => errors.push(format!("{port}: {error}")),
        }
    }
    Err(format!("etcd doesn't say who leads: {}", errors.join("; ")))
}

/// The place of the member that leads etcd itself, in this list of members' ports; `None` if none of them does, as during an
/// election.
pub(crate) async fn leading_member(
    client: &Client,
    ports: impl Iterator<Item = u16>,
) -> Option<usize> {
    for (place, port) in ports.enumerate() {
        let Ok(status) = post(client, port, "maintenance/status", &json!({})).await else {
            continue;
        };
        let leader = status.get("leader");
        if leader.is_some() && leader == status.pointer("/header/member_id") {
            return Some(place);
        }
    }
    None
}

/// By the gateway for JSON that every member has.
async fn post(client: &Client, port: u16, path: &str, body: &Value) -> Result<Value, String> {
    let answer = client
        .post(format!("http://127.0.0.1:{port}/v3/{path}"))
        .timeout(PATIENCE)
        .body(body.to_string())
        .send()
        .await
        .map_err(|error| format!("{error:?}"))?;
    let status = answer.status();
    let text = answer.text().await.map_err(|error| error.to_string())?;
    if !status.is_success() {
        return Err(text);
    }
    serde_json::from_str(&text).map_err(|error| error.to_string())
}

async fn ask(client: &Client, port: u16) -> Result<Option<String>, String> {
    let wanted = json!({"key": STANDARD.encode(LEADER)});
    let answer = post(client, port, "kv/range", &wanted).await?;
    let Some(value) = answer.pointer("/kvs/0/value").and_then(Value::as_str) else {
        return Ok(None);
    };
    let value = STANDARD.decode(value).map_err(|error| error.to_string())?;
    let candidate: Value = serde_json::from_slice(&value).map_err(|error| error.to_string())?;
    let address = candidate.get("address").and_then(Value::as_str);
    Ok(address.map(str::to_owned))
}

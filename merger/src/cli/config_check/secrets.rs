//! The certificates that the file names, by itself or by secret discovery from other files. Here files are read.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use time::OffsetDateTime;

use super::yaml::{self, Node};
use super::{Report, Severity};
use crate::tls::{Files, Flaw, Identity, judge_authorities, judge_identity};

/// Looks at all certificates that the file and the merger's options name.
pub(super) fn check(text: &str, own: Option<&Files>, now: OffsetDateTime, report: &mut Report) {
    let mut looking = Looking {
        now,
        seen: BTreeSet::new(),
        report,
    };
    // What can't be read has been said.
    if let Ok(root) = yaml::read(text) {
        root.walk(&mut |node| {
            looking.discovered(node);
            looking.named(node, None);
        });
    }
    if let Some(own) = own {
        let identity = own.identity.iter();
        let identity = identity.flat_map(|identity| judge_identity(identity, now));
        looking.say(0, identity.collect());
        looking.say(0, judge_authorities(&own.authorities, now));
    }
    report.in_order();
}

struct Looking<'a> {
    now: OffsetDateTime,
    /// Secrets that are referred to in several places are looked at once.
    seen: BTreeSet<(PathBuf, String)>,
    report: &'a mut Report,
}

impl Looking<'_> {
    fn say(&mut self, line: usize, flaws: Vec<Flaw>) {
        for flaw in flaws {
            let severity = match flaw.is_grave() {
                true => Severity::Mistake,
                false => Severity::Hint,
            };
            self.report.add(line, severity, flaw);
        }
    }

    /// A reference to a secret in another file.
    fn discovered(&mut self, node: &Node) {
        let Some(place) = node.at(&["sds_config", "path_config_source", "path"]) else {
            return;
        };
        let (Some(path), Some(name)) = (place.scalar(), node.text(&["name"])) else {
            return;
        };
        if !self.seen.insert((path.into(), name.to_owned())) {
            return;
        }
        let line = place.line;
        let said = std::fs::read_to_string(path).map_err(|error| error.to_string());
        let read = said.and_then(|text| yaml::read(&text).map_err(|error| error.to_string()));
        let secrets = match read {
            Ok(secrets) => secrets,
            Err(error) => {
                let text = format!("{path}, which names the certificates of `{name}`: {error}");
                return self.report.mistake(line, text);
            }
        };
        let mut found = secrets.list(&["resources"]).iter();
        match found.find(|secret| secret.text(&["name"]) == Some(name)) {
            Some(secret) => secret.walk(&mut |node| self.named(node, Some(line))),
            None => {
                let text = format!("{path} has no secret `{name}`");
                self.report.mistake(line, text);
            }
        }
    }

    /// A certificate with its key, or authorities, whose files are named here; what is wrong is said of `line`, if it is given.
    fn named(&mut self, node: &Node, line: Option<usize>) {
        if let (Some(certificate), Some(key)) = (
            node.at(&["certificate_chain", "filename"]),
            node.at(&["private_key", "filename"]),
        ) {
            let identity = Identity {
                certificate: certificate.scalar().unwrap_or_default().into(),
                key: key.scalar().unwrap_or_default().into(),
            };
            let flaws = judge_identity(&identity, self.now);
            self.say(line.unwrap_or(certificate.line), flaws);
        }
        if let Some(authorities) = node.at(&["trusted_ca", "filename"]) {
            let path = Path::new(authorities.scalar().unwrap_or_default());
            let flaws = judge_authorities(path, self.now);
            self.say(line.unwrap_or(authorities.line), flaws);
        }
    }
}

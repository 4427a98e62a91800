//! `weft config shards`: the files of the shards, for an Envoy that watches a folder (`weft config envoy --dynamic`).
//!
//! Each file is written beside its place and moved there, so that Envoy reads it at once and as a whole. Files with endpoints that
//! are there already stay as they are, unless the operator says otherwise: the merger may have put a spare node there.

use std::path::{Path, PathBuf};

use clap::Args;

use super::render::{render_endpoints, render_shards};
use super::{ConfigEnvoyError, EnvoyArgs, Topology};
use crate::endpoints::{CLUSTERS_FILE, files};

/// Options of `weft config shards`.
#[derive(Debug, Clone, Args)]
pub struct ShardsArgs {
    /// The cluster, in the words of `weft config envoy`.
    #[command(flatten)]
    pub cluster: EnvoyArgs,

    /// Where to write the files [default: the folder that Envoy watches].
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,

    /// Also write the files with nodes that are there already, and that the merger may have changed.
    #[arg(long, requires = "eds")]
    pub replace_endpoints: bool,
}

/// Writes the files, and says which.
pub fn run(arguments: &ShardsArgs) -> Result<String, ConfigEnvoyError> {
    let topology = Topology::try_from(&arguments.cluster)?;
    let watched = topology.dynamic.as_ref();
    let watched = watched.ok_or(ConfigEnvoyError::NoFolder)?.folder.as_path();
    let folder = arguments.out.as_deref().unwrap_or(watched);
    let clusters = render_shards(&topology)?;
    std::fs::create_dir_all(folder).map_err(|source| ConfigEnvoyError::Write {
        path: folder.to_owned(),
        source,
    })?;
    let mut said = String::new();
    // The clusters come last: a cluster waits for its file of nodes, which must be there by then.
    for (name, text) in render_endpoints(&topology) {
        let path = folder.join(name);
        match path.exists() && !arguments.replace_endpoints {
            true => said.push_str(&format!("{} stays as it is\n", path.display())),
            false => said.push_str(&written(&path, &text)?),
        }
    }
    said.push_str(&written(&folder.join(CLUSTERS_FILE), &clusters)?);
    Ok(said)
}

fn written(path: &Path, text: &str) -> Result<String, ConfigEnvoyError> {
    files::write(path, text).map_err(|source| ConfigEnvoyError::Write {
        path: path.to_owned(),
        source,
    })?;
    Ok(format!("{}\n", path.display()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        shards: ShardsArgs,
    }

    fn run_line(line: &str) -> Result<String, String> {
        let words = std::iter::once("weft").chain(line.split_whitespace());
        let line = Line::try_parse_from(words).map_err(|error| error.to_string())?;
        run(&line.shards).map_err(|error| error.to_string())
    }

    fn write(line: &str, folder: &Path) -> Result<String, String> {
        run_line(&format!("{line} --dynamic {}", folder.display()))
    }

    fn names(folder: &Path) -> Vec<String> {
        let found = fs::read_dir(folder).unwrap();
        let mut names: Vec<String> = found
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn the_shards_are_in_one_file_and_with_eds_each_one_s_nodes_in_another() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new");
        write("--shards 2", &path).unwrap();
        assert_eq!(names(&path), ["clusters.yaml"]);
        let clusters = fs::read_to_string(path.join("clusters.yaml")).unwrap();
        assert!(clusters.contains("hostname: shard-1-node-0") && !clusters.contains("EDS"));
        write("--shards 2 --eds --spare 127.0.0.1:9", &path).unwrap();
        let all = [
            "clusters.yaml",
            "shard-0.json",
            "shard-1.json",
            "spare.json",
        ];
        assert_eq!(names(&path), all);
        let clusters = fs::read_to_string(path.join("clusters.yaml")).unwrap();
        assert!(!clusters.contains("hostname:") && clusters.matches("type: EDS").count() == 3);
        let shard = files::read(&path.join("shard-1.json")).unwrap();
        assert_eq!(shard.names(), ["shard-1-node-0"]);
        let spare = files::read(&path.join("spare.json")).unwrap();
        assert_eq!(spare.names(), ["spare-node-0"]);
    }

    #[test]
    fn nodes_that_are_listed_already_stay_unless_it_is_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("shard-0.json");
        write("--shards 1 --eds", folder.path()).unwrap();
        fs::write(&file, "changed").unwrap();
        let said = write("--shards 2 --eds", folder.path()).unwrap();
        assert!(said.contains("shard-0.json stays as it is\n"), "{said}");
        assert_eq!(fs::read_to_string(&file).unwrap(), "changed");
        assert!(folder.path().join("shard-1.json").exists());
        write("--shards 2 --eds --replace-endpoints", folder.path()).unwrap();
        assert_ne!(fs::read_to_string(&file).unwrap(), "changed");
    }

    #[test]
    fn what_makes_no_folder_is_refused_in_one_line() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let refused = write("", &file).unwrap_err();
        assert!(
            refused.starts_with(&file.display().to_string()),
            "{refused}"
        );
        let named = write("--eds --node-host n-{shard}:7700", folder.path());
        assert_eq!(
            named.unwrap_err(),
            "--eds: Envoy resolves no names in files with endpoints: shard-0-node-0 needs an IP address, not n-0:7700"
        );
        for line in [
            "",
            "--dynamic d --spare 127.0.0.1:1",
            "--dynamic d --replace-endpoints",
        ] {
            assert!(run_line(line).is_err(), "{line}");
        }
        assert_eq!(names(folder.path()), ["file"]);
    }
}

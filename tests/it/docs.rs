//! What the guides say, as far as it can be compared with what the program has.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use regex::Regex;

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn found(pattern: &str, file: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(root(file)).unwrap();
    let matches = Regex::new(pattern).unwrap();
    matches.captures_iter(&text).map(|captures| captures[1].to_owned()).collect()
}

#[test]
fn the_reference_has_every_metric_and_no_other() {
    let rendered = found(r#""(callpost_[a-z_]+)""#, "src/metrics/render.rs");
    assert!(rendered.len() > 40, "{rendered:?}");
    assert_eq!(found(r"(?m)^\| `(callpost_[a-z_]+)` \|", "docs/reference.md"), rendered);
    let told = found(r"(callpost_[a-z_]+)", "README.md");
    assert_eq!(told.difference(&rendered).collect::<Vec<_>>(), Vec::<&String>::new(), "README names others");
}

#[test]
fn the_reference_has_every_class_of_answers_and_no_other() {
    let text = fs::read_to_string(root("src/sinks/sink.rs")).unwrap();
    let begin = text.find("pub const fn as_str(self)").unwrap();
    let body = &text[begin..begin + text[begin..].find("\n    }").unwrap()];
    let names = Regex::new(r#"=> "([a-z]+)""#).unwrap();
    let classes: BTreeSet<String> = names.captures_iter(body).map(|c| c[1].to_owned()).collect();
    assert!(classes.len() > 10, "{classes:?}");
    assert_eq!(found(r"(?m)^\| `([a-z]+)` \|", "docs/reference.md"), classes);
}

#[test]
fn every_link_between_documents_leads_somewhere() {
    let mut files: Vec<PathBuf> =
        ["README.md", "README.es.md", "CONTRIBUTING.md", "ARCHITECTURE.md"].map(root).to_vec();
    files.extend(fs::read_dir(root("docs")).unwrap().map(|entry| entry.unwrap().path()));
    let link = Regex::new(r"\]\(([^)\s]+)\)").unwrap();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        for captures in link.captures_iter(&text).filter(|c| !c[1].starts_with("http")) {
            let (path, anchor) = captures[1].split_once('#').unwrap_or((&captures[1], ""));
            let target = if path.is_empty() { file.clone() } else { file.parent().unwrap().join(path) };
            assert!(target.exists(), "{}: {}", file.display(), &captures[1]);
            let wanted = |line: &str| {
                let heading = line.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
                line.starts_with('#') && heading == anchor
            };
            let there = anchor.is_empty() || fs::read_to_string(&target).unwrap().lines().any(wanted);
            assert!(there, "{}: {}", file.display(), &captures[1]);
        }
    }
}

//! The project's own small rules about its files, which no linter knows.

use std::fs;
use std::path::{Path, PathBuf};

use crate::command::Run;
use crate::{Outcome, paths};

/// Source files end before this line, tests at their end not counted (`docs`: house style).
const MAX_LINES: usize = 500;

/// Files that may be longer, each with its reason.
const LONGER: &[(&str, &str)] = &[];

/// What no text file may hold, and why. In two halves each, so that this file passes.
const BANNED: &[(&str, &str, &str)] = &[
    ("/ho", "me/", "a path of one machine"),
    ("/ro", "ot/", "a path of one machine"),
    ("/wo", "rk/", "a path of one machine"),
    ("crates", ".io/api", "the host of a package registry"),
    ("index.crates", ".io", "the host of a package registry"),
    ("static.crates", ".io", "the host of a package registry"),
    ("registry.npm", "js.org", "the host of a package registry"),
    ("files.python", "hosted.org", "the host of a package registry"),
    ("pypi", ".org", "the host of a package registry"),
    ("proxy.golang", ".org", "the host of a package registry"),
    ("repo1.mav", "en.org", "the host of a package registry"),
    ("deb.deb", "ian.org", "the host of a package registry"),
];

/// Names that say nothing about what is inside.
const EMPTY_NAMES: &[&str] = &["utils", "util", "common", "helpers", "misc"];

/// Checks every file that git knows or would add.
pub(crate) fn run() -> Outcome {
    let listed = Run::new("git").args(["ls-files", "--cached", "--others", "--exclude-standard"]).quiet().output()?;
    let mut findings = Vec::new();
    for name in listed.lines() {
        let path = paths::root().join(name);
        let Ok(bytes) = fs::read(&path) else { continue }; // deleted, not yet committed
        if let Ok(text) = String::from_utf8(bytes) {
            file(name, &path, &text, &mut findings);
        }
    }
    if findings.is_empty() { Ok(()) } else { Err(findings.join("\n")) }
}

fn file(name: &str, path: &Path, text: &str, findings: &mut Vec<String>) {
    findings.extend(banned(name, text));
    match Path::new(name).extension().and_then(|end| end.to_str()) {
        Some("rs") => findings.extend(source(name, text)),
        Some("md") => findings.extend(dead_links(name, text, |target| path.with_file_name(target).exists())),
        Some("toml") => findings.extend(manifest(name, text)),
        _ => {}
    }
}

fn banned(name: &str, text: &str) -> Vec<String> {
    let generated = name.ends_with(".lock");
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate().filter(|_| !generated) {
        for (first, second, why) in BANNED {
            let word = format!("{first}{second}");
            // A path starts a word: `target/work/x` and `https://host/home/` are none.
            let start =
                |at: usize| line[..at].chars().next_back().is_none_or(|c| !c.is_alphanumeric() && !"._-~}".contains(c));
            if line.match_indices(&word).any(|(at, _)| !word.starts_with('/') || start(at)) {
                found.push(format!("{name}:{}: {why}: {word}", number + 1));
            }
        }
    }
    found
}

fn source(name: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let is_test = name.contains("/tests/") || name.ends_with("tests.rs");
    let lines = text.lines().take_while(|line| *line != "#[cfg(test)]").count();
    let allowed = LONGER.iter().any(|(file, _)| *file == name);
    if lines > MAX_LINES && !allowed && !is_test {
        found.push(format!("{name}: {lines} lines without tests, at most {MAX_LINES}: split it by subject"));
    }
    let stem = Path::new(name).with_extension("");
    if let Some(part) = stem.iter().filter_map(|part| part.to_str()).find(|part| EMPTY_NAMES.contains(part)) {
        found.push(format!("{name}: `{part}` says nothing about what is inside"));
    }
    found
}

/// Each crate of ours takes the workspace's lints.
fn manifest(name: &str, text: &str) -> Option<String> {
    let guest = name.starts_with("plugins/") || name.starts_with("sdk/");
    let is_package = name.ends_with("Cargo.toml") && text.contains("[package]") && !guest;
    let inherits =
        text.split_once("[lints]").is_some_and(|(_, rest)| rest.trim_start().starts_with("workspace = true"));
    (is_package && !inherits).then(|| format!("{name}: lacks `[lints] workspace = true`"))
}

/// Relative links of a Markdown file that lead nowhere.
fn dead_links(name: &str, text: &str, exists: impl Fn(&PathBuf) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    let mut in_code = false;
    for (number, line) in text.lines().enumerate() {
        in_code ^= line.trim_start().starts_with("```");
        for part in line.split("](").skip(1).filter(|_| !in_code) {
            let target = part.split([')', ' ', '#']).next().unwrap_or_default();
            let outside = target.is_empty() || target.contains("://") || target.starts_with("mailto:");
            if !outside && !exists(&PathBuf::from(target)) {
                found.push(format!("{name}:{}: the link leads nowhere: {target}", number + 1));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn banned_in(line: &str) -> usize {
        banned("a.md", line).len()
    }

    #[test]
    fn a_path_of_one_machine_is_found_wherever_it_starts() {
        let home = ["/ho", "me/"].concat();
        assert_eq!(banned_in(&format!("{home}me/x")), 1);
        assert_eq!(banned_in(&format!("see `{home}me/x`")), 1);
        assert_eq!(banned_in(&format!("${{HOME}}{home}x")), 0);
        assert_eq!(banned_in(&format!("https://example.com{home}x")), 0);
    }

    #[test]
    fn a_long_source_file_is_found_and_its_tests_do_not_count() {
        let code = "fn a() {}\n".repeat(MAX_LINES);
        assert_eq!(source("host/core/src/a.rs", &format!("{code}#[cfg(test)]\nmod tests {{}}\n")), [""; 0]);
        assert_eq!(source("host/core/src/a.rs", &format!("{code}fn b() {{}}\n")).len(), 1);
    }

    #[test]
    fn a_module_called_utils_is_found() {
        assert_eq!(source("host/core/src/utils.rs", "").len(), 1);
        assert_eq!(source("host/core/src/utils/a.rs", "").len(), 1);
    }

    #[test]
    fn a_crate_without_the_lints_is_found() {
        assert!(manifest("host/x/Cargo.toml", "[package]\nname = \"x\"\n").is_some());
        assert!(manifest("host/x/Cargo.toml", "[package]\nname = \"x\"\n[lints]\nworkspace = true\n").is_none());
    }

    #[test]
    fn a_relative_link_that_leads_nowhere_is_found() {
        let text = "[a](gone.md#x) [b](here.md) [c](https://example.com)\n```\n[d](gone.md)\n```\n";
        let found = dead_links("README.md", text, |target| target.ends_with("here.md"));
        assert_eq!(found, ["README.md:1: the link leads nowhere: gone.md"]);
    }
}

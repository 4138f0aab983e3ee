//! The files that a path with wildcards names.

use std::io;
use std::path::{Path, PathBuf};

/// The files in the order in which they are read: by name. `*` and `?` stand in the last part of the path alone.
pub(super) fn list(pattern: &Path) -> io::Result<Vec<PathBuf>> {
    let name = pattern.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    if !name.contains(['*', '?']) {
        return Ok(vec![pattern.to_path_buf()]);
    }
    let folder = match pattern.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let fits = matches(&name, &entry.file_name().to_string_lossy());
        if fits && entry.path().is_file() {
            files.push(pattern.with_file_name(entry.file_name()));
        }
    }
    files.sort();
    Ok(files)
}

/// `*` stands for any text, `?` for any one character; a leading dot must be given, as in a shell.
fn matches(pattern: &str, name: &str) -> bool {
    if name.starts_with('.') && !pattern.starts_with('.') {
        return false;
    }
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n) = (0, 0);
    // Where the last star was, and the first character that it does not stand for yet.
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(c) if *c == '?' || *c == name[n] => (p, n) = (p + 1, n + 1),
            _ => {
                let Some((at, until)) = star else { return false };
                star = Some((at, until + 1));
                (p, n) = (at + 1, until + 1);
            }
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_match_as_in_a_shell() {
        for (pattern, name, fits) in [
            ("*.ndjson", "a.ndjson", true),
            ("*.ndjson", "a.ndjson.zst", false),
            ("*.ndjson*", "a.ndjson.zst", true),
            ("part-??.json", "part-07.json", true),
            ("part-??.json", "part-7.json", false),
            ("*a*b", "xaybzb", true),
            ("*", ".hidden", false),
        ] {
            assert_eq!(matches(pattern, name), fits, "{pattern} {name}");
        }
    }
}

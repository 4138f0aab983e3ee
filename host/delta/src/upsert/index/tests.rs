use std::collections::HashSet;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::sets::{Part, choose};
use super::*;

fn keys(rows: u64) -> Arc<FileKeys> {
    Arc::new(FileKeys::build((0..rows).map(|r| (r << 40, r as u32)).collect()))
}

fn add(path: &str, size: u64) -> Add {
    Add {
        path: path.into(),
        partition_values: Default::default(),
        size,
        modification_time: 0,
        data_change: true,
        stats: None,
        tags: None,
        deletion_vector: None,
    }
}

fn config(folder: Option<&Path>, index_memory: u64) -> DeltaConfig {
    DeltaConfig { index_memory, index_dir: folder.map(Path::to_owned), ..DeltaConfig::new("/lake") }
}

async fn home(config: &DeltaConfig, table: &str, key: &str, files: &[Arc<Add>]) -> (Home, Exact) {
    let mut home = Home::new(Arc::new(KeyCache::new(config)), table.into());
    let exact = home.open(key.into(), files).await.unwrap();
    (home, exact)
}

async fn insert(home: &Home, add: &Add, keys: &Arc<FileKeys>, since: u64) {
    if let Some(writing) = home.insert(add, keys, since) {
        writing.await.unwrap();
    }
}

fn stored(root: &Path) -> Vec<PathBuf> {
    let Ok(tables) = std::fs::read_dir(root) else { return Vec::new() };
    tables.flat_map(|t| std::fs::read_dir(t.unwrap().path()).unwrap().map(|f| f.unwrap().path())).collect()
}

#[tokio::test]
async fn the_bound_holds_and_what_a_cut_uses_is_not_evicted_for_what_it_uses_next() {
    let one = keys(1_000);
    let (home, _) = home(&config(None, one.memory() as u64 * 2), "t", "", &[]).await;
    let since = home.now();
    for path in ["0", "1", "2", "3"] {
        insert(&home, &add(path, 1), &keys(1_000), since).await;
    }
    assert!(home.get("0").is_some() && home.get("1").is_some());
    assert!(home.get("2").is_none() && !home.would_keep(1_000, since));
    let later = home.now();
    assert!(home.would_keep(1_000, later));
    insert(&home, &add("2", 1), &keys(1_000), later).await;
    assert!(home.get("0").is_none() && home.get("2").is_some());
    assert!(home.cache.bytes() <= one.memory() * 2);
    home.forget("2");
    assert_eq!(home.cache.bytes(), one.memory());
}

#[tokio::test]
async fn what_does_not_fit_in_memory_is_on_disk_and_is_found_by_the_next_host() {
    let folder = tempfile::tempdir().unwrap();
    let one = keys(1_000);
    let config = config(Some(folder.path()), one.memory() as u64);
    let (first, _) = home(&config, "t", "id long", &[]).await;
    let files: Vec<Arc<Add>> = ["a", "b", "c"].into_iter().map(|path| Arc::new(add(path, 7))).collect();
    for add in &files {
        let since = first.now();
        insert(&first, add, &one, since).await;
        assert!(first.cache.bytes() <= one.memory());
    }
    assert_eq!(stored(folder.path()).len(), 2, "the last one is in memory");
    for path in ["a", "b", "c"] {
        let found = first.get(path).unwrap();
        assert_eq!(found.iter().collect::<Vec<_>>(), one.iter().collect::<Vec<_>>());
    }
    drop(first);
    // `b` left the table while no host ran, and another file has the name of `a` in another table.
    let (next, _) = home(&config, "t", "id long", &[Arc::clone(&files[0])]).await;
    assert_eq!(stored(folder.path()).len(), 1);
    let found = next.load(&files[0]).await.unwrap().unwrap();
    assert_eq!(found.iter().collect::<Vec<_>>(), one.iter().collect::<Vec<_>>());
    assert_eq!(found.memory(), 0);
    let (other, _) = home(&config, "other", "id long", &files).await;
    assert!(other.load(&files[0]).await.unwrap().is_none());
    next.forget("a");
    assert!(stored(folder.path()).is_empty() && next.get("a").is_none());
}

#[tokio::test]
async fn a_file_of_keys_that_is_damaged_or_of_something_else_is_not_used_and_goes() {
    type Damage = fn(&Path);
    fn with_byte(file: &Path, at: fn(usize) -> usize) {
        let mut bytes = std::fs::read(file).unwrap();
        let at = at(bytes.len());
        bytes[at] ^= 0x40;
        std::fs::write(file, bytes).unwrap();
    }
    let damages: [(&str, Damage); 8] = [
        ("cut short", |file| {
            let bytes = std::fs::read(file).unwrap();
            std::fs::write(file, &bytes[..bytes.len() - 100]).unwrap();
        }),
        ("cut to its header", |file| {
            let bytes = std::fs::read(file).unwrap();
            std::fs::write(file, &bytes[..30]).unwrap();
        }),
        ("empty", |file| std::fs::write(file, b"").unwrap()),
        ("longer", |file| {
            let bytes = std::fs::read(file).unwrap();
            std::fs::write(file, [&bytes[..], &[0; 16]].concat()).unwrap();
        }),
        ("a bit in its entries", |file| with_byte(file, |length| length / 2)),
        ("a bit in its checksum", |file| with_byte(file, |length| length - 1)),
        ("another version", |file| with_byte(file, |_| 8)),
        ("no file of keys", |file| with_byte(file, |_| 0)),
    ];
    for (what, damage) in damages {
        let folder = tempfile::tempdir().unwrap();
        let config = config(Some(folder.path()), 0);
        let file = Arc::new(add("a", 7));
        let (first, _) = home(&config, "t", "id long", &[]).await;
        insert(&first, &file, &keys(1_000), 0).await;
        drop(first);
        damage(&stored(folder.path())[0]);
        let (next, _) = home(&config, "t", "id long", &[Arc::clone(&file)]).await;
        assert!(next.load(&file).await.unwrap().is_none(), "{what}");
        assert!(stored(folder.path()).is_empty(), "{what}");
        insert(&next, &file, &keys(1_000), 0).await;
        assert!(next.load(&file).await.unwrap().is_some(), "{what}: made anew");
    }
    // Whole, but of other key columns, or of a data file that has another size now.
    for (key, size) in [("id integer", 7), ("id long", 8)] {
        let folder = tempfile::tempdir().unwrap();
        let config = config(Some(folder.path()), 0);
        let (first, _) = home(&config, "t", "id long", &[]).await;
        insert(&first, &add("a", 7), &keys(1_000), 0).await;
        drop(first);
        let file = Arc::new(add("a", size));
        let (next, _) = home(&config, "t", key, &[Arc::clone(&file)]).await;
        assert!(next.load(&file).await.unwrap().is_none() && stored(folder.path()).is_empty(), "{key} {size}");
    }
}

#[tokio::test]
async fn what_a_killed_host_was_writing_goes_and_the_limit_of_the_disk_holds() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = keys(1_000).packed().len() as u64;
    let config = DeltaConfig { index_disk: bytes * 5 / 2, ..config(Some(folder.path()), 0) };
    let (first, _) = home(&config, "t", "id long", &[]).await;
    let files: Vec<Arc<Add>> = ["a", "b", "c", "d"].into_iter().map(|path| Arc::new(add(path, 7))).collect();
    for add in &files {
        insert(&first, add, &keys(1_000), 0).await;
    }
    assert_eq!(stored(folder.path()).len(), 2);
    let half = stored(folder.path())[0].with_extension("1-1.new");
    std::fs::write(&half, b"half").unwrap();
    drop(first);
    let (next, _) = home(&config, "t", "id long", &files).await;
    assert!(!half.exists());
    next.forget("a");
    insert(&next, &files[3], &keys(1_000), 0).await;
    assert!(next.get("d").is_some());
    // A folder that can not be made.
    let blocked = folder.path().join("file");
    std::fs::write(&blocked, b"").unwrap();
    let config = DeltaConfig { index_dir: Some(blocked.join("index")), ..config };
    let (blocked, _) = home(&config, "t", "id long", &files).await;
    insert(&blocked, &files[0], &keys(1_000), 0).await;
    assert!(blocked.get("a").is_none());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_merged_set_finds_what_its_files_have(
        contents in proptest::collection::vec(proptest::collection::vec(0u64..100, 0..200), 2..8),
        gone in proptest::collection::vec(any::<bool>(), 8),
        far in any::<bool>(),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let disk = Arc::new(Disk::new(folder.path().to_owned(), u64::MAX));
        let (shelf, _) = Shelf::open(disk, &"t".into(), "id long".into());
        let code = |c: u64| if far { c.wrapping_mul(0x9e37_79b9_7f4a_7c15) } else { c };
        let adds: Vec<Arc<Add>> = (0..contents.len()).map(|i| Arc::new(add(&format!("{i}"), 7))).collect();
        let parts = adds.iter().zip(&contents).map(|(add, codes)| {
            Part::of(&add.path, add.size, &FileKeys::build(codes.iter().map(|c| code(*c)).zip(0..).collect()))
        });
        let gone: HashSet<String> = (0..contents.len()).filter(|i| gone[*i] && *i > 1).map(|i| format!("{i}")).collect();
        let half = contents.len() / 2 + 1;
        let parts: Vec<Part> = parts.collect();
        // First some of the files, of which some go then, and then all.
        let one = choose(&[], parts[..half].to_vec(), |_| true).unwrap().run(&shelf).unwrap();
        let two = choose(&[one], parts[half..].to_vec(), |path| !gone.contains(path));
        prop_assume!(two.is_some());
        let two = two.unwrap();
        let replaced = two.replaces();
        let two = two.run(&shelf).unwrap();
        prop_assert_eq!(replaced.len(), 1);
        let known: HashSet<String> = two.paths().map(|p| p.to_string()).collect();
        let exact = Exact::of(vec![two]);
        let wanted: Vec<u64> = (0..101).map(code).collect();
        let mut asked: Asked<'_> = adds.iter().map(|add| (add.path.as_str(), (add, 0..wanted.len()))).collect();
        let mut found: Vec<(String, u32, u32)> = Vec::new();
        for (add, rows) in exact.find(&wanted, &mut asked) {
            found.extend(rows.into_iter().map(|(row, place)| (add.path.clone(), row, place)));
        }
        found.sort();
        let mut expected = Vec::new();
        for (file, codes) in contents.iter().enumerate().filter(|(i, _)| known.contains(&i.to_string())) {
            expected.extend(codes.iter().enumerate().map(|(row, c)| (file.to_string(), row as u32, *c as u32)));
        }
        expected.sort();
        prop_assert_eq!(found, expected);
        prop_assert!(known.iter().all(|path| !gone.contains(path)));
        prop_assert!(asked.keys().all(|path| !known.contains(*path)));
    }
}

/// A host died after it had written a set and before it removed those that it was made of.
#[tokio::test]
async fn sets_that_share_a_file_are_told_apart_and_merged_without_a_loss() {
    let folder = tempfile::tempdir().unwrap();
    let config = DeltaConfig { index: IndexKind::Exact, ..config(Some(folder.path()), 1 << 20) };
    let files: Vec<Arc<Add>> = ["a", "b", "c", "d"].into_iter().map(|path| Arc::new(add(path, 7))).collect();
    let part = |file: usize| {
        let codes = (0..100u64).map(|row| ((row * 4 + file as u64) << 40, row as u32)).collect();
        Part::of(&files[file].path, 7, &FileKeys::build(codes))
    };
    let (first, _) = home(&config, "t", "id long", &files).await;
    let shelf = first.shelf.clone().unwrap();
    let old = choose(&[], vec![part(0), part(1), part(2)], |_| true).unwrap().run(&shelf).unwrap();
    let new = choose(&[], vec![part(2), part(3)], |_| true).unwrap().run(&shelf).unwrap();
    let find = |exact: &Exact, files: &[Arc<Add>]| {
        let wanted: Vec<u64> = (0..400u64).map(|n| n << 40).collect();
        let mut asked: Asked<'_> = files.iter().map(|add| (add.path.as_str(), (add, 0..wanted.len()))).collect();
        let found = exact.find(&wanted, &mut asked);
        found.into_iter().map(|(_, rows)| rows.len()).sum::<usize>() + asked.len() * 100
    };
    assert_eq!(find(&Exact::of(vec![old.clone(), new.clone()]), &files), 400);
    let merged = choose(&[old, new], Vec::new(), |_| true).unwrap().run(&shelf).unwrap();
    assert_eq!(merged.paths().count(), 4);
    assert_eq!(find(&Exact::of(vec![merged.clone()]), &files), 400);
    shelf.remove(merged.name());
    drop(shelf);
    // `a` and `b` are gone: the older set, though it is of more files, has nothing of its own.
    let (_, exact) = home(&config, "t", "id long", &files[2..]).await;
    assert_eq!(stored(folder.path()).len(), 1);
    assert_eq!(find(&exact, &files[2..]), 200);
}

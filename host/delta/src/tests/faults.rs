//! Stores that answer wrongly, late or not at all; disks that are full or read-only.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures::stream::BoxStream;
use millrace_core::error::Kind;
use millrace_core::sink::Sink;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use super::support::*;
use crate::config::Mode;

/// What happens to a put of a commit.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    /// It lands, and the answer is lost.
    LandsUnanswered,
    /// It does not land, and there is no answer.
    Lost,
    /// There is no answer, and it lands only when the next put of a commit comes.
    LandsLate,
    /// No space is left.
    Full,
}

/// Puts of commits fail as planned, one plan a put; everything else passes.
#[derive(Debug)]
struct Faulty {
    inner: Arc<dyn ObjectStore>,
    plan: Mutex<Vec<Option<Fault>>>,
    late: Mutex<Option<(Path, PutPayload, PutOptions)>>,
    puts: AtomicUsize,
    checkpoints_refused: AtomicUsize,
}

impl Faulty {
    fn new(inner: Arc<dyn ObjectStore>) -> Arc<Self> {
        Arc::new(Self {
            inner,
            plan: Mutex::default(),
            late: Mutex::default(),
            puts: AtomicUsize::default(),
            checkpoints_refused: AtomicUsize::default(),
        })
    }

    fn plan(&self, faults: &[Option<Fault>]) {
        *self.plan.lock().unwrap() = faults.iter().rev().copied().collect();
    }
}

impl std::fmt::Display for Faulty {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("faulty")
    }
}

fn no_answer() -> Error {
    Error::Generic { store: "faulty", source: "no answer".into() }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        if !location.as_ref().contains("_delta_log") {
            return self.inner.put_opts(location, payload, opts).await;
        }
        if location.as_ref().contains("checkpoint") {
            self.checkpoints_refused.fetch_add(1, Ordering::SeqCst);
            return Err(no_answer());
        }
        self.puts.fetch_add(1, Ordering::SeqCst);
        let late = self.late.lock().unwrap().take();
        if let Some((location, payload, opts)) = late {
            // Its own conditional put decides whether it still lands.
            drop(self.inner.put_opts(&location, payload, opts).await);
        }
        let fault = self.plan.lock().unwrap().pop().flatten();
        match fault {
            None => self.inner.put_opts(location, payload, opts).await,
            Some(Fault::Lost) => Err(no_answer()),
            Some(Fault::LandsUnanswered) => {
                self.inner.put_opts(location, payload, opts).await?;
                Err(no_answer())
            }
            Some(Fault::LandsLate) => {
                *self.late.lock().unwrap() = Some((location.clone(), payload, opts));
                Err(no_answer())
            }
            Some(Fault::Full) => Err(Error::Generic {
                store: "faulty",
                source: std::io::Error::from(std::io::ErrorKind::StorageFull).into(),
            }),
        }
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_without_an_answer_are_found_or_made_exactly_once() {
    use Fault::*;
    for faults in [
        vec![Some(LandsUnanswered)],
        vec![Some(Lost)],
        vec![Some(LandsLate)],
        vec![Some(Lost), Some(Lost), Some(LandsUnanswered)],
        vec![Some(LandsLate), Some(LandsLate), Some(Lost)],
        vec![Some(Full), Some(Full)],
    ] {
        let lake = Lake::new(Mode::Append);
        let store = Faulty::new(lake.local_root());
        let mut sink = lake.sink_on(store.clone());
        fenced(&mut sink, 1, &[]).await;
        for at in 1..=4 {
            store.plan(&faults);
            put(&mut sink, at..=at).await.unwrap_or_else(|e| panic!("{faults:?} at {at}: {e}"));
        }
        assert_eq!(ids(&lake.path("public/orders")).await, [1, 2, 3, 4], "{faults:?}");
        assert!(store.puts.load(Ordering::SeqCst) >= 4);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_lands_after_its_host_gave_up_is_seen_by_the_next_fence() {
    let lake = Lake::new(Mode::Append);
    let store = Faulty::new(lake.local_root());
    let mut sink = lake.sink_on(store.clone());
    fenced(&mut sink, 1, &[]).await;
    put(&mut sink, 1..=1).await.unwrap();
    store.plan(&[Some(Fault::Lost), Some(Fault::Lost), Some(Fault::Lost), Some(Fault::Lost), Some(Fault::LandsLate)]);
    let error = put(&mut sink, 2..=2).await.unwrap_err();
    assert_eq!((error.kind, error.code), (Kind::Retry, "store.unavailable"));
    // The put of the fence's epoch lets the late one land first.
    let stored = fenced(&mut sink, 2, &[orders()]).await;
    assert_eq!(stored[&orders()][&source()].commit(), 2);
    put(&mut sink, 3..=3).await.unwrap();
    assert_eq!(ids(&lake.path("public/orders")).await, [1, 2, 3]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checkpoints_that_fail_cost_nothing_but_themselves() {
    let mut lake = Lake::new(Mode::Append);
    lake.config.checkpoint_interval = 2;
    let store = Faulty::new(lake.local_root());
    let mut sink = lake.sink_on(store.clone());
    fenced(&mut sink, 1, &[]).await;
    let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
    let mut at = 0;
    while store.checkpoints_refused.load(Ordering::SeqCst) < 2 {
        assert!(std::time::Instant::now() < until, "no second try of a checkpoint after {at} commits");
        at += 1;
        put(&mut sink, at..=at).await.unwrap();
    }
    assert_eq!(count_of(&lake.path("public/orders/_delta_log"), ".parquet"), 0);
    assert_eq!(ids(&lake.path("public/orders")).await, (1..=at).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_store_is_retried_by_the_engine_and_loses_nothing() {
    let lake = Lake::new(Mode::Append);
    let store = Faulty::new(lake.local_root());
    let mut sink = lake.sink_on(store.clone());
    fenced(&mut sink, 1, &[]).await;
    put(&mut sink, 1..=1).await.unwrap();
    store.plan(&[Some(Fault::Full); 5]);
    let error = put(&mut sink, 2..=2).await.unwrap_err();
    assert_eq!((error.kind, error.code), (Kind::Retry, "store.full"));
    fenced(&mut sink, 2, &[orders()]).await;
    put(&mut sink, 2..=2).await.unwrap();
    assert_eq!(ids(&lake.path("public/orders")).await, [1, 2]);
}

/// A file system of a few hundred kilobytes; `None` where this user may not mount one.
pub(super) struct Small(pub std::path::PathBuf);

impl Small {
    pub(super) fn mount(at: &std::path::Path, size: &str) -> Option<Self> {
        std::fs::create_dir_all(at).unwrap();
        let options = format!("size={size}");
        let mounted =
            std::process::Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(at).output().ok()?;
        mounted.status.success().then(|| Self(at.to_owned()))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        drop(std::process::Command::new("umount").arg(&self.0).output());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_is_really_full_is_named_and_the_stream_goes_on_once_there_is_space() {
    let mut lake = Lake::new(Mode::Append);
    let Some(small) = Small::mount(&lake.path("small"), "256k") else {
        eprintln!("skipped: this user may not mount a file system");
        return;
    };
    lake.config.path = small.0.join("{namespace}/{table}").display().to_string();
    let mut sink = lake.sink();
    fenced(&mut sink, 1, &[]).await;
    put(&mut sink, 1..=1).await.unwrap();
    let ballast = small.0.join("ballast");
    let written = std::fs::write(&ballast, vec![7; 1 << 20]);
    assert!(written.is_err(), "the disk is full now");
    let error = put(&mut sink, 2..=2).await.unwrap_err();
    assert_eq!((error.kind, error.code), (Kind::Retry, "store.full"), "{error}");
    std::fs::remove_file(&ballast).unwrap();
    fenced(&mut sink, 2, &[orders()]).await;
    put(&mut sink, 2..=2).await.unwrap();
    assert_eq!(ids(&small.0.join("public/orders")).await, [1, 2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_only_folder_is_named_before_anything_starts() {
    let mut lake = Lake::new(Mode::Append);
    let Some(small) = Small::mount(&lake.path("fixed"), "64k") else {
        eprintln!("skipped: this user may not mount a file system");
        return;
    };
    let remounted = std::process::Command::new("mount").args(["-o", "remount,ro"]).arg(&small.0).status().unwrap();
    assert!(remounted.success());
    lake.config.path = small.0.display().to_string();
    let error = lake.sink().fence(&claim(1, &[])).await.unwrap_err();
    assert_eq!((error.kind, error.code), (Kind::Halt, "store.read_only"), "{error}");
    assert!(error.hint.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_slept_looks_before_it_commits() {
    let lake = Lake::new(Mode::Append);
    let mut sink = lake.sink();
    fenced(&mut sink, 1, &[]).await;
    put(&mut sink, 1..=1).await.unwrap();
    let mut next = lake.sink();
    fenced(&mut next, 2, &[orders()]).await;
    put(&mut next, 2..=3).await.unwrap();
    // The log's retention removed the commit whose number the sleeper would take: a put there would succeed unseen.
    std::fs::remove_file(lake.path("public/orders/_delta_log/00000000000000000001.json")).unwrap();
    lake.machine.skip(86_400);
    let error = put(&mut sink, 2..=2).await.unwrap_err();
    assert_eq!((error.kind, error.code), (Kind::Reload, "log.moved_on"));
}

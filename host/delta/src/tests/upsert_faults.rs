//! The store fails at every step of a cut: what a next host finds is either the cut or nothing of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use futures::stream::BoxStream;
use millrace_core::error::Kind;
use millrace_core::position::Order;
use millrace_core::sink::Sink;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use super::mirror::{KeyKind, Source, current};
use super::support::*;
use crate::config::Mode;

/// How the host dies at a put.
#[derive(Clone, Copy, Debug)]
enum Death {
    Before,
    /// Half of the object is there.
    Torn,
    After,
}

/// Passes puts until the one at which the host dies; nothing comes through afterwards.
#[derive(Debug)]
struct Deadly {
    inner: Arc<dyn ObjectStore>,
    left: AtomicUsize,
    death: Death,
    /// A put of what is to be created overwrites it.
    careless: bool,
}

fn dead() -> Error {
    Error::Generic { store: "deadly", source: std::io::Error::from(std::io::ErrorKind::ReadOnlyFilesystem).into() }
}

impl std::fmt::Display for Deadly {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("deadly")
    }
}

#[async_trait]
impl ObjectStore for Deadly {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let left = self.left.load(Ordering::SeqCst);
        if left == 0 {
            return Err(dead());
        }
        self.left.store(left - 1, Ordering::SeqCst);
        let opts = if self.careless { PutOptions::default() } else { opts };
        if left > 1 {
            return self.inner.put_opts(location, payload, opts).await;
        }
        match self.death {
            Death::Before => {}
            // A commit appears whole or not at all in every store that we write to; data files may not.
            Death::Torn if location.as_ref().contains("_delta_log") => {}
            Death::Torn => {
                let bytes: Vec<u8> = payload.iter().flatten().copied().collect();
                self.inner.put_opts(location, bytes[..bytes.len() / 2].to_vec().into(), opts).await?;
            }
            Death::After => {
                self.inner.put_opts(location, payload, opts).await?;
            }
        }
        Err(dead())
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        if self.left.load(Ordering::SeqCst) == 0 { Err(dead()) } else { self.inner.get_opts(location, options).await }
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

/// A host that dies at its `puts`th put of the third cut. Answers whether it got that far.
async fn dies(death: Death, puts: usize, seed: u64) -> bool {
    let mut lake = Lake::new(Mode::Upsert);
    lake.config.checkpoint_interval = 0;
    lake.config.deletion_vectors = seed.is_multiple_of(2);
    let mut source_rows = Source::new(KeyKind::Composite, seed);
    let mut sink = lake.sink();
    fenced(&mut sink, 1, &[]).await;
    let cut = |source_rows: &Source| cut_of(&[(source(), source_rows.mirror.commit)]);
    for _ in 0..2 {
        for batch in source_rows.batches(40) {
            sink.write(batch).await.unwrap();
        }
        sink.prepare(&cut(&source_rows)).await.unwrap();
        sink.commit(&cut(&source_rows)).await.unwrap();
    }
    drop(sink);
    let deadly =
        Arc::new(Deadly { inner: lake.local_root(), left: AtomicUsize::new(usize::MAX), death, careless: false });
    let mut sink = lake.sink_on(Arc::clone(&deadly) as Arc<dyn ObjectStore>);
    fenced(&mut sink, 2, &[orders()]).await;
    let before = source_rows.expected();
    let position = source_rows.mirror.commit;
    let batches = source_rows.batches(40);
    for batch in &batches {
        sink.write(batch.clone()).await.unwrap();
    }
    deadly.left.store(puts, Ordering::SeqCst);
    let end = cut(&source_rows);
    let died = match sink.prepare(&end).await {
        Ok(_) => sink.commit(&end).await.is_err(),
        Err(_) => true,
    };
    drop(sink);
    let mut next = lake.sink();
    let stored = next.fence(&claim(3, &[orders()])).await.unwrap()[&orders()][&source()];
    let table = lake.path("public/orders");
    let names = source_rows.names();
    if stored == Order::new(position, 1) {
        assert_eq!(current(&lake, &table, &names).await, before, "{death:?} at {puts}: nothing of the cut");
        for batch in batches {
            next.write(batch).await.unwrap();
        }
        next.prepare(&end).await.unwrap();
        next.commit(&end).await.unwrap();
    }
    assert_eq!(current(&lake, &table, &names).await, source_rows.expected(), "{death:?} at {puts}");
    died
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_may_die_at_any_put_of_a_cut() {
    for death in [Death::Before, Death::Torn, Death::After] {
        let mut most = 0;
        for seed in 0..4 {
            let mut puts = 1;
            while dies(death, puts, seed).await {
                puts += 1;
                assert!(puts < 20, "a cut has a handful of puts");
            }
            most = most.max(puts);
        }
        assert!(most > 3, "data, vectors and commit were put");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_overwrites_what_is_to_be_created_is_refused_before_anything_is_written() {
    let lake = Lake::new(Mode::Upsert);
    let (left, death) = (AtomicUsize::new(usize::MAX), Death::Before);
    let store = Arc::new(Deadly { inner: lake.local_root(), left, death, careless: true });
    let mut sink = lake.sink_on(store);
    let error = sink.fence(&claim(1, &[orders()])).await.unwrap_err();
    assert_eq!((error.kind, error.code), (Kind::Config, "store.no_conditional_put"));
    assert!(!lake.path("public").exists());
}

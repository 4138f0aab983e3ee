//! A store in memory that fails as its schedule says: the host dies before, in or after a put, an answer is lost, another
//! writer or owner comes first.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use tokio::sync::Notify;

use super::World;

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    DiesBefore,
    /// Half of the object is there.
    DiesWithin,
    DiesAfter,
    /// Nothing happened.
    Refused,
    /// It happened.
    AnswerLost,
    /// The client itself put it twice, and its second try found the first.
    PutTwice,
    /// Another writer commits before it.
    ForeignFirst,
    /// Another host takes the table over before it.
    TakenOver,
}
use Fault::*;

/// One host's way to the store.
pub(super) struct Link {
    world: Arc<World>,
    dead: AtomicBool,
    pub died: Notify,
    /// Without faults.
    quiet: AtomicBool,
}

impl Link {
    pub(super) fn new(world: Arc<World>, quiet: bool) -> Self {
        Self { world, dead: AtomicBool::new(false), died: Notify::new(), quiet: AtomicBool::new(quiet) }
    }

    pub(super) fn trouble(&self) {
        self.quiet.store(false, Ordering::SeqCst);
    }

    fn inner(&self) -> &InMemory {
        &self.world.objects
    }

    fn fault(&self, path: &str, faults: &[Fault], one_in: u64) -> Option<Fault> {
        if self.quiet.load(Ordering::SeqCst) { None } else { self.world.fault(path, faults, one_in) }
    }

    /// The host ends here: whoever drives it drops all that it does.
    async fn die(&self) -> Result<PutResult> {
        self.dead.store(true, Ordering::SeqCst);
        self.died.notify_one();
        std::future::pending().await
    }

    fn alive(&self) -> Result<()> {
        if self.dead.load(Ordering::SeqCst) { Err(lost("the host is dead")) } else { Ok(()) }
    }
}

fn lost(why: &'static str) -> Error {
    Error::Generic { store: "simulated", source: why.into() }
}

/// Commits: those of a table's log.
fn is_commit(path: &str) -> bool {
    path.contains("_delta_log/") && path.ends_with(".json")
}

/// The kernel writes them on threads of its own, which no host's death ends.
fn is_checkpoint(path: &str) -> bool {
    path.contains("_delta_log/") && !is_commit(path)
}

fn is_compaction(payload: &PutPayload) -> bool {
    let bytes: Vec<u8> = payload.iter().flatten().copied().collect();
    String::from_utf8_lossy(&bytes).contains(r#""operation":"OPTIMIZE""#)
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Link")
    }
}

impl std::fmt::Display for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("simulated")
    }
}

#[async_trait]
impl ObjectStore for Link {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.alive()?;
        let path = location.as_ref();
        // Compactions are few.
        let compacts = is_commit(path) && is_compaction(&payload);
        let faults: &[Fault] = if compacts {
            &[DiesBefore, DiesAfter, AnswerLost, ForeignFirst, TakenOver]
        } else if is_commit(path) {
            &[DiesBefore, DiesAfter, Refused, AnswerLost, PutTwice, ForeignFirst, TakenOver]
        } else if is_checkpoint(path) {
            &[Refused, AnswerLost]
        } else {
            &[DiesBefore, DiesWithin, DiesAfter, Refused, AnswerLost]
        };
        let one_in = if compacts {
            2
        } else if is_commit(path) {
            6
        } else {
            20
        };
        let fault = self.fault(path, faults, one_in);
        let creates = matches!(opts.mode, PutMode::Create);
        match fault {
            Some(DiesBefore) => return self.die().await,
            Some(DiesWithin) => {
                let bytes: Vec<u8> = payload.iter().flatten().copied().collect();
                self.inner().put_opts(location, bytes[..bytes.len() / 2].to_vec().into(), opts).await?;
                return self.die().await;
            }
            Some(Refused) => return Err(lost("refused")),
            Some(ForeignFirst) => self.world.foreign_commit().await,
            Some(TakenOver) => self.world.take_over().await,
            Some(DiesAfter | AnswerLost | PutTwice) | None => {}
        }
        let answer = self.inner().put_opts(location, payload, opts).await;
        match fault {
            Some(DiesAfter) => self.die().await,
            Some(AnswerLost) => Err(lost("the answer was lost")),
            Some(PutTwice) if creates && answer.is_ok() => {
                Err(Error::AlreadyExists { path: path.to_owned(), source: "by the first try".into() })
            }
            _ => answer,
        }
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.alive()?;
        self.inner().put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.alive()?;
        if is_commit(location.as_ref()) && self.fault(location.as_ref(), &[Refused], 60).is_some() {
            return Err(lost("not read"));
        }
        self.inner().get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner().delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner().list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner().list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner().copy_opts(from, to, options).await
    }
}

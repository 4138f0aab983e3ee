//! The thread that owns the replication socket: it reads whole messages ahead into a bounded queue and keeps
//! answering the server, also while the pipeline takes nothing.
//!
//! A thread with a runtime of its own, because the server writes every change for itself: a shared runtime is woken for
//! each of them, which measured 1.8 µs of system time a change where all that we do with it takes 0.7. This thread
//! really sleeps between reads, and takes what has come meanwhile at once.
//!
//! <https://www.postgresql.org/docs/current/protocol-replication.html>

use std::fmt;
use std::future::Future;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use millrace_core::error::{Error, Result};
use postgres_protocol::message::frontend;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Builder;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::connection::{READ_SIZE, Socket, frame_length};
use super::fault::Fault;
use super::lsn::Lsn;

/// Chunks that wait for the pipeline: 16 × 256 KiB bound the memory at 4 MiB (more only for single larger messages)
/// and are some milliseconds of full speed.
const CHUNKS: usize = 16;

/// Free room below which a new buffer is taken: small reads share one.
const LEAST_ROOM: usize = 16 << 10;

/// A read that brought less than this is not followed by another at once. A millisecond is nothing to the 100 ms of a
/// batch, and at full speed a socket holds no more than some of them.
const WORTHWHILE_READ: usize = 64 << 10;
const PAUSE: Duration = Duration::from_millis(1);

/// The server is told where we are at least so often; it hangs up after `wal_sender_timeout` (60 s by default).
const STATUS_INTERVAL: Duration = Duration::from_secs(10);

/// A server that was asked for an answer every status interval and gave none for so long is gone. Long, because one
/// that decodes a huge transaction of which nothing is published may be silent for a while.
const SILENCE_LIMIT: Duration = Duration::from_secs(300);

/// A goodbye that was heard frees the slot at once and keeps the last acknowledgement. A server that is amid a large
/// transaction may not hear it for long: then the next start repeats what it had acknowledged.
const GOODBYE_LIMIT: Duration = Duration::from_secs(5);

/// The pipeline's side of the stream. Dropping it ends the thread and the connection.
pub(super) struct Stream {
    chunks: mpsc::Receiver<Result<Bytes, Fault>>,
    durable: watch::Sender<Lsn>,
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").field("durable", &*self.durable.borrow()).finish()
    }
}

/// A connection on which START_REPLICATION was answered.
pub(super) struct Started {
    pub(super) socket: Box<dyn Socket>,
    /// What came with the answer.
    pub(super) read: BytesMut,
    /// What is durable already.
    pub(super) start: Lsn,
    /// The server's `wal_sender_timeout`, zero where it has none.
    pub(super) sender_timeout: Duration,
}

impl Stream {
    /// Runs `connect` on a thread of its own, which then keeps the socket. Answers what `connect` says beside it.
    pub(super) async fn start<T: Send + 'static>(
        connect: impl Future<Output = Result<(Started, T)>> + Send + 'static,
    ) -> Result<(Self, T)> {
        let (answer, started) = oneshot::channel();
        let runtime = Builder::new_current_thread().enable_all().build().map_err(no_thread)?;
        let thread = std::thread::Builder::new().name("postgres-stream".into());
        thread.spawn(move || runtime.block_on(serve(connect, answer))).map_err(no_thread)?;
        started.await.unwrap_or_else(|_| Err(Error::bug("the thread of the replication stream is gone")))
    }

    /// Whole messages, header and all, in order. Cancel-safe.
    pub(super) async fn next(&mut self) -> Result<Bytes, Fault> {
        self.chunks.recv().await.unwrap_or_else(|| Err(Fault::closed()))
    }

    /// The messages that are there already.
    pub(super) fn try_next(&mut self) -> Result<Option<Bytes>, Fault> {
        match self.chunks.try_recv() {
            Ok(chunk) => chunk.map(Some),
            Err(mpsc::error::TryRecvError::Empty) => Ok(None),
            Err(mpsc::error::TryRecvError::Disconnected) => Err(Fault::closed()),
        }
    }

    /// Tells the server, now and with every later status, that everything before `lsn` is durable here (I3).
    pub(super) fn acknowledge(&self, lsn: Lsn) {
        self.durable.send_if_modified(|durable| {
            let newer = lsn > *durable;
            *durable = lsn.max(*durable);
            newer
        });
    }

    /// Says goodbye, and waits until the server has heard it, with the last acknowledgement: a socket that is closed
    /// over unread data resets the connection, and the server drops what it had not read yet.
    pub(super) async fn close(self) {
        let Self { mut chunks, durable } = self;
        drop(durable);
        while chunks.recv().await.is_some() {}
    }
}

fn no_thread(e: std::io::Error) -> Error {
    Error::retry("postgres.no_thread", format!("a thread for the replication stream: {e}"))
}

/// The thread's life: connects, answers, pumps.
async fn serve<T>(connect: impl Future<Output = Result<(Started, T)>>, answer: oneshot::Sender<Result<(Stream, T)>>) {
    let (started, beside) = match connect.await {
        Ok(connected) => connected,
        // Nobody listens where `open` was given up.
        Err(e) => return answer.send(Err(e)).map_or((), drop),
    };
    let Started { socket, read, start, sender_timeout } = started;
    let (to_pipeline, chunks) = mpsc::channel(CHUNKS);
    let (durable, from_pipeline) = watch::channel(start);
    let every = match sender_timeout {
        Duration::ZERO => STATUS_INTERVAL,
        limit => STATUS_INTERVAL.min(limit / 3).max(Duration::from_millis(10)),
    };
    let task = Task { socket, read, durable: from_pipeline, to_pipeline, answer_now: false, next_read: Instant::now() };
    if answer.send(Ok((Stream { chunks, durable }, beside))).is_ok() {
        task.run(every).await;
    }
}

struct Task {
    socket: Box<dyn Socket>,
    read: BytesMut,
    durable: watch::Receiver<Lsn>,
    to_pipeline: mpsc::Sender<Result<Bytes, Fault>>,
    /// A keepalive asked for an answer.
    answer_now: bool,
    next_read: Instant,
}

/// What to do next.
enum Event {
    /// Everything before this is durable.
    Durable,
    /// The pipeline lets go of the stream.
    Dropped,
    Tick,
    Sent,
    Read(std::io::Result<usize>),
}

impl Task {
    async fn run(mut self, every: Duration) {
        let end = self.pump(every).await;
        match end {
            // Errors reach the pipeline behind what was read before them.
            Err(fault) => drop(self.to_pipeline.send(Err(fault)).await),
            Ok(()) => match timeout(GOODBYE_LIMIT, self.goodbye()).await {
                Ok(Ok(())) => {}
                Ok(Err(fault)) => {
                    tracing::warn!(error = %fault.at("saying goodbye"), "the last acknowledgement may be lost")
                }
                Err(_) => tracing::warn!("the server did not hear the last acknowledgement in time"),
            },
        }
    }

    async fn pump(&mut self, every: Duration) -> Result<(), Fault> {
        let mut tick = interval(every);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard = Instant::now();
        let mut waiting = self.whole_messages()?;
        loop {
            if self.answer_now {
                self.answer_now = false;
                self.status(false).await?;
            }
            match self.event(&mut tick, &mut waiting).await {
                Event::Durable => self.status(false).await?,
                Event::Dropped => return Ok(()),
                Event::Tick => {
                    // While the pipeline takes nothing we do not listen, so silence means nothing.
                    if waiting.is_none() && heard.elapsed() > SILENCE_LIMIT {
                        let what = format!("the server was silent for {} s", SILENCE_LIMIT.as_secs());
                        return Err(Fault::Lost(std::io::Error::new(std::io::ErrorKind::TimedOut, what)));
                    }
                    self.status(true).await?;
                }
                Event::Sent => heard = Instant::now(),
                Event::Read(Ok(0)) => return Err(Fault::closed()),
                Event::Read(Ok(bytes)) => {
                    heard = Instant::now();
                    self.next_read = if bytes < WORTHWHILE_READ { heard + PAUSE } else { heard };
                    waiting = self.whole_messages()?;
                }
                Event::Read(Err(e)) => return Err(Fault::Lost(e)),
            }
        }
    }

    /// `waiting`: messages that the queue had no room for; nothing is read until it takes them.
    async fn event(&mut self, tick: &mut tokio::time::Interval, waiting: &mut Option<Bytes>) -> Event {
        self.make_room();
        if waiting.is_none() {
            let pause = self.next_read.saturating_duration_since(Instant::now());
            if !pause.is_zero() {
                // Blocks on purpose: nothing else runs on this thread.
                std::thread::sleep(pause);
            }
        }
        tokio::select! {
            changed = self.durable.changed() => if changed.is_ok() { Event::Durable } else { Event::Dropped },
            _ = tick.tick() => Event::Tick,
            permit = self.to_pipeline.reserve(), if waiting.is_some() => match (permit, waiting.take()) {
                (Ok(permit), Some(chunk)) => {
                    permit.send(Ok(chunk));
                    Event::Sent
                }
                _ => Event::Dropped,
            },
            read = self.socket.read_buf(&mut self.read), if waiting.is_none() => Event::Read(read),
        }
    }

    fn make_room(&mut self) {
        let begun = match frame_length(&self.read) {
            usize::MAX => 0,
            length => length,
        };
        if begun > self.read.capacity() || self.read.capacity() - self.read.len() < LEAST_ROOM {
            self.read.reserve(READ_SIZE.max(begun.saturating_sub(self.read.len())));
        }
    }

    /// Takes the whole messages off the buffer, and notes whether one of them asks for an answer.
    fn whole_messages(&mut self) -> Result<Option<Bytes>, Fault> {
        let mut end = 0;
        while let Some(frame) = first_frame(&self.read[end..])? {
            self.answer_now |= asks_for_an_answer(frame);
            end += frame.len();
        }
        Ok((end > 0).then(|| self.read.split_to(end).freeze()))
    }

    /// Standby status update: written, flushed and applied are one to us. Microseconds since 2000-01-01 would be the
    /// client's clock, which the server only shows.
    async fn status(&mut self, answer_wanted: bool) -> Result<(), Fault> {
        let durable = self.durable.borrow_and_update().0;
        let mut body = BytesMut::with_capacity(34);
        body.put_u8(b'r');
        for _ in 0..3 {
            body.put_u64(durable);
        }
        body.put_i64(0);
        body.put_u8(u8::from(answer_wanted));
        let mut out = BytesMut::with_capacity(39);
        frontend::CopyData::new(body).map_err(Fault::Lost)?.write(&mut out);
        self.socket.write_all(&out).await.map_err(Fault::Lost)?;
        self.socket.flush().await.map_err(Fault::Lost)
    }

    async fn goodbye(&mut self) -> Result<(), Fault> {
        self.status(false).await?;
        let mut out = BytesMut::new();
        frontend::copy_done(&mut out);
        frontend::terminate(&mut out);
        self.socket.write_all(&out).await.map_err(Fault::Lost)?;
        self.socket.flush().await.map_err(Fault::Lost)?;
        loop {
            self.read.clear();
            self.make_room();
            if self.socket.read_buf(&mut self.read).await.map_err(Fault::Lost)? == 0 {
                return Ok(());
            }
        }
    }
}

/// The message at the front, if it is whole.
pub(super) fn first_frame(buffer: &[u8]) -> Result<Option<&[u8]>, Fault> {
    match frame_length(buffer) {
        usize::MAX => Ok(None),
        // The length counts itself.
        length if length < 5 || length > i32::MAX as usize => Err(Fault::protocol("a message of an impossible length")),
        length => Ok(buffer.get(..length)),
    }
}

/// CopyData with a primary keepalive (`k`, end of WAL, clock, reply requested).
fn asks_for_an_answer(frame: &[u8]) -> bool {
    matches!(frame, [b'd', _, _, _, _, b'k', .., 1] if frame.len() == 5 + 18)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::DuplexStream;

    fn keepalive(end: u64, answer: bool) -> Vec<u8> {
        let mut frame = vec![b'd', 0, 0, 0, 22, b'k'];
        frame.extend(end.to_be_bytes());
        frame.extend([0; 8]);
        frame.push(u8::from(answer));
        frame
    }

    async fn stream(sender_timeout: Duration) -> (Stream, DuplexStream) {
        let (ours, server) = tokio::io::duplex(1 << 20);
        let started = Started { socket: Box::new(ours), read: BytesMut::new(), start: Lsn(7), sender_timeout };
        let (stream, ()) = Stream::start(async { Ok((started, ())) }).await.unwrap();
        (stream, server)
    }

    /// The next status that the server gets: what is durable, and whether an answer is wanted.
    async fn status(server: &mut DuplexStream) -> (u64, bool) {
        let mut frame = [0; 39];
        server.read_exact(&mut frame).await.unwrap();
        assert_eq!((frame[0], frame[5]), (b'd', b'r'));
        (u64::from_be_bytes(frame[14..22].try_into().unwrap()), frame[38] == 1)
    }

    #[tokio::test]
    async fn messages_arrive_whole_however_the_bytes_are_cut() {
        let (mut stream, mut server) = stream(Duration::ZERO).await;
        let sent: Vec<u8> = (1..=50).flat_map(|n| keepalive(n, false)).collect();
        let all = sent.clone();
        let writer = tokio::spawn(async move {
            for piece in all.chunks(7) {
                server.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
            server
        });
        let mut got = Vec::new();
        while got.len() < sent.len() {
            let chunk = stream.next().await.unwrap();
            assert_eq!(chunk.len() % 23, 0);
            got.extend_from_slice(&chunk);
        }
        assert_eq!(got, sent);
        drop(writer.await.unwrap());
        assert!(stream.next().await.is_err());
    }

    #[tokio::test]
    async fn the_server_is_answered_while_the_pipeline_takes_nothing() {
        let (stream, mut server) = stream(Duration::from_millis(30)).await;
        assert_eq!(status(&mut server).await, (7, true));
        // More than the queue holds, each read for itself.
        for n in 0..100 {
            server.write_all(&keepalive(n, false)).await.unwrap();
            tokio::task::yield_now().await;
        }
        for _ in 0..20 {
            assert_eq!(timeout(Duration::from_secs(10), status(&mut server)).await.unwrap(), (7, true));
        }
        drop(stream);
    }

    #[tokio::test]
    async fn a_keepalive_that_asks_is_answered_and_an_acknowledgement_is_sent_at_once() {
        let (mut stream, mut server) = stream(Duration::ZERO).await;
        assert_eq!(status(&mut server).await, (7, true));
        server.write_all(&keepalive(9, true)).await.unwrap();
        assert_eq!(status(&mut server).await, (7, false));
        stream.next().await.unwrap();
        stream.acknowledge(Lsn(9));
        assert_eq!(status(&mut server).await, (9, false));
        // Never backwards: the next status is that of the next acknowledgement.
        stream.acknowledge(Lsn(8));
        stream.acknowledge(Lsn(10));
        assert_eq!(status(&mut server).await, (10, false));
    }

    #[tokio::test]
    async fn a_dropped_stream_says_goodbye_with_its_last_acknowledgement() {
        let (stream, mut server) = stream(Duration::ZERO).await;
        assert_eq!(status(&mut server).await, (7, true));
        stream.acknowledge(Lsn(11));
        drop(stream);
        assert_eq!(goodbye(&mut server).await, 11);
    }

    #[tokio::test]
    async fn a_closed_stream_has_been_heard_by_a_server_that_was_still_sending() {
        let (stream, mut server) = stream(Duration::ZERO).await;
        assert_eq!(status(&mut server).await, (7, true));
        stream.acknowledge(Lsn(11));
        let closed = tokio::spawn(stream.close());
        // As a server does: it goes on sending until it reads the goodbye.
        for n in 0..20_000 {
            server.write_all(&keepalive(n, false)).await.unwrap();
        }
        assert_eq!(goodbye(&mut server).await, 11);
        assert!(!closed.is_finished(), "closed only when the server has hung up");
        drop(server);
        timeout(Duration::from_secs(10), closed).await.unwrap().unwrap();
    }

    /// The last acknowledgement before the end of the copy and of the session.
    async fn goodbye(server: &mut DuplexStream) -> u64 {
        let mut durable = 0;
        let mut kind = [0];
        loop {
            server.read_exact(&mut kind).await.unwrap();
            let mut rest = vec![0; if kind == *b"d" { 38 } else { 4 }];
            server.read_exact(&mut rest).await.unwrap();
            match kind {
                [b'd'] => durable = u64::from_be_bytes(rest[13..21].try_into().unwrap()),
                [b'X'] => return durable,
                other => assert_eq!(other, *b"c"),
            }
        }
    }

    #[tokio::test]
    async fn an_impossible_length_is_an_error_and_no_wait() {
        let (mut stream, mut server) = stream(Duration::ZERO).await;
        server.write_all(&[b'd', 0, 0, 0, 1, 0]).await.unwrap();
        assert!(matches!(stream.next().await, Err(Fault::Protocol(_))));
    }
}

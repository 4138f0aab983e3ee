//! A real S3 server with conditional puts: SeaweedFS.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use super::process::Process;
use super::{cache_dir, free_port, require, tail, wait_for};

const IDENTITIES: &str = r#"{"identities":[{"name":"test","credentials":[{"accessKey":"test","secretKey":"test"}],
"actions":["Admin","Read","Write","List","Tagging"]}]}"#;

/// A running S3 server with one user, key and secret `test`. Dropping it stops it and removes its folder.
#[derive(Debug)]
pub struct Seaweed {
    process: Process,
    port: u16,
    _dir: tempfile::TempDir,
}

impl Seaweed {
    /// Starts it and waits until its S3 port answers (about 6 s).
    pub fn start() -> Seaweed {
        let weed = require(cache_dir().join("venv/bin/weed"));
        let dir = tempfile::Builder::new().prefix("mr-s3-").tempdir().expect("a temporary folder");
        let identities = dir.path().join("identities.json");
        std::fs::write(&identities, IDENTITIES).expect("the identities' file");
        let log = dir.path().join("weed.log");
        let mut last = String::new();
        for _ in 0..3 {
            let port = free_port();
            let process = Process::start(&weed, &arguments(dir.path(), &identities, port), &log, "TERM");
            let ready = || (!process.is_running()).then_some(false).or_else(|| answers(port).then_some(true));
            if wait_for("the start of SeaweedFS", Duration::from_secs(90), || tail(&log), ready) {
                return Seaweed { process, port, _dir: dir };
            }
            last = tail(&log); // a port was taken in between
        }
        panic!("SeaweedFS does not start:\n{last}");
    }

    /// `http://127.0.0.1:PORT`.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The settings that delta-rs and object_store take to reach it, path style, over plain HTTP.
    pub fn storage_options(&self) -> Vec<(&'static str, String)> {
        vec![
            ("AWS_ENDPOINT_URL", self.endpoint()),
            ("AWS_ACCESS_KEY_ID", "test".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "test".to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
            ("AWS_VIRTUAL_HOSTED_STYLE_REQUEST", "false".to_owned()),
            ("conditional_put", "etag".to_owned()),
        ]
    }

    /// Creates a bucket.
    ///
    /// # Panics
    /// With the server's output if it refuses.
    pub fn create_bucket(&self, name: &str) {
        let script = include_str!("create_bucket.py");
        let out = std::process::Command::new(require(cache_dir().join("venv/bin/python")))
            .args(["-c", script, &self.endpoint(), name])
            .output()
            .expect("python");
        assert!(out.status.success(), "bucket {name}: {}", String::from_utf8_lossy(&out.stderr));
    }

    /// The server's process, to stop or continue it by a signal.
    pub fn process(&self) -> &Process {
        &self.process
    }
}

fn arguments(dir: &Path, identities: &Path, s3_port: u16) -> Vec<String> {
    // Each server has a gRPC port too: its HTTP port + 10000 unless it is given, which may lie beyond 65535.
    let [master, master_grpc, volume, volume_grpc, filer, filer_grpc, s3_grpc] = std::array::from_fn(|_| free_port());
    let mut args = vec!["-logtostderr".to_owned(), "server".to_owned(), format!("-dir={}", dir.display())];
    args.extend(["-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3", "-s3.port.iceberg=0"].map(str::to_owned));
    args.extend(["-volume.max=20", "-master.volumeSizeLimitMB=64", "-master.telemetry=false"].map(str::to_owned));
    args.push(format!("-s3.config={}", identities.display()));
    let ports = [
        ("master.port", master),
        ("master.port.grpc", master_grpc),
        ("volume.port", volume),
        ("volume.port.grpc", volume_grpc),
        ("filer.port", filer),
        ("filer.port.grpc", filer_grpc),
        ("s3.port", s3_port),
        ("s3.port.grpc", s3_grpc),
    ];
    args.extend(ports.map(|(name, port)| format!("-{name}={port}")));
    args
}

/// Whether the S3 port answers a request at all (without a signature: 403).
fn answers(port: u16) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.write_all(b"GET / HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")?;
        let mut head = [0; 12];
        stream.read_exact(&mut head)?;
        Ok(&head[9..] == b"403" || &head[9..] == b"200")
    };
    ask().unwrap_or(false)
}

//! Certificates for a test server, made with the `openssl` program: an authority, a server and a client.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A certificate and its key, as PEM files.
#[derive(Debug, Clone)]
pub struct Identity {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// A certificate authority of its own in `dir`.
#[derive(Debug, Clone)]
pub struct Authority {
    dir: PathBuf,
    root: Identity,
}

impl Authority {
    /// Makes a self-signed authority called `name`.
    pub fn create(dir: &Path, name: &str) -> Authority {
        let root = Identity { certificate: dir.join(format!("{name}.crt")), key: dir.join(format!("{name}.key")) };
        let subject = format!("/CN={name}");
        openssl(&[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "30",
            "-subj",
            &subject,
            "-addext",
            "basicConstraints=critical,CA:TRUE",
            "-addext",
            "keyUsage=critical,keyCertSign,cRLSign",
            "-keyout",
            text(&root.key),
            "-out",
            text(&root.certificate),
        ]);
        Authority { dir: dir.to_owned(), root }
    }

    /// The root certificate (PEM): what `sslrootcert` takes.
    pub fn certificate(&self) -> &Path {
        &self.root.certificate
    }

    /// Signs a certificate for `common_name` (a client's is its user) and `names`, as in `DNS:localhost,IP:127.0.0.1`.
    pub fn issue(&self, common_name: &str, names: &str) -> Identity {
        let path = |end: &str| self.dir.join(format!("{common_name}.{end}"));
        let (request, extensions) = (path("csr"), path("ext"));
        let issued = Identity { certificate: path("crt"), key: path("key") };
        std::fs::write(&extensions, format!("subjectAltName={names}\n")).expect("the extensions' file");
        let subject = format!("/CN={common_name}");
        openssl(&[
            "req",
            "-new",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-subj",
            &subject,
            "-keyout",
            text(&issued.key),
            "-out",
            text(&request),
        ]);
        openssl(&[
            "x509",
            "-req",
            "-in",
            text(&request),
            "-CA",
            text(&self.root.certificate),
            "-CAkey",
            text(&self.root.key),
            "-CAcreateserial",
            "-days",
            "30",
            "-extfile",
            text(&extensions),
            "-out",
            text(&issued.certificate),
        ]);
        issued
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a temporary folder's name is UTF-8")
}

fn openssl(args: &[&str]) {
    let out = Command::new("openssl").args(args).output().expect("openssl: run `cargo xtask setup test`");
    assert!(out.status.success(), "openssl {args:?}: {}", String::from_utf8_lossy(&out.stderr));
}

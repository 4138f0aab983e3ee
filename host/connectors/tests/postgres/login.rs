//! Ways to log in, and what `sslmode` lets through.

use serde_json::json;

use crate::feed::{Feed, config};
use crate::servers::postgres::{Auth, Options, Postgres};

const TABLE: &str =
    "create role app login replication superuser password 'correct horse'; create table t (id int primary key)";

/// Whether a source gets in with this URL's end; its error's code if not.
async fn opens(server: &Postgres, login: &str, host: &str, parameters: &str) -> Result<(), String> {
    let url = format!("postgres://{login}@{host}:{}/postgres?{parameters}", server.port());
    let mut feed = Feed::new(config(server, &["public.t"], json!({ "url": url, "snapshot": "never" })));
    loop {
        match feed.reopen().await {
            Ok(_) => return Ok(()),
            // The session before lets go of the slot.
            Err(e) if e.code == "postgres.slot_in_use" => tokio::task::yield_now().await,
            Err(e) => {
                assert!(!e.to_string().contains("horse"), "{e}");
                return Err(e.code.to_owned());
            }
        }
    }
}

fn server(options: Options) -> Postgres {
    let server = options.start();
    server.sql(TABLE);
    server
}

const RIGHT: &str = "app:correct%20horse";
const WRONG: &str = "app:battery";

#[tokio::test(flavor = "multi_thread")]
async fn every_password_method_lets_the_right_one_in_and_names_a_wrong_one() {
    for auth in [Auth::ScramSha256, Auth::Md5, Auth::Password] {
        let server = server(Postgres::options(15).auth(auth));
        assert_eq!(opens(&server, RIGHT, "127.0.0.1", "sslmode=disable").await, Ok(()), "{auth:?}");
        let refused = Err("postgres.password_rejected".to_owned());
        assert_eq!(opens(&server, WRONG, "127.0.0.1", "sslmode=disable").await, refused, "{auth:?}");
        let missing = Err("postgres.login_refused".to_owned());
        assert_eq!(opens(&server, "app", "127.0.0.1", "sslmode=disable").await, missing, "{auth:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_sslmode_does_what_libpq_says() {
    let plain = server(Postgres::options(15));
    for (mode, expected) in [
        ("disable", Ok(())),
        ("allow", Ok(())),
        ("prefer", Ok(())),
        ("require", Err("postgres.tls")),
        ("verify-ca", Err("postgres.tls")),
        ("verify-full", Err("postgres.tls")),
    ] {
        let found = opens(&plain, "app", "127.0.0.1", &format!("sslmode={mode}")).await;
        assert_eq!(found, expected.map_err(str::to_owned), "{mode} without TLS at the server");
    }

    let encrypted = server(Postgres::options(15).tls().tls_only().auth(Auth::ScramSha256));
    let root = format!("sslrootcert={}", encrypted.authority().certificate().display());
    for (parameters, expected) in [
        ("sslmode=disable".to_owned(), Err("postgres.login_refused")),
        ("sslmode=allow".to_owned(), Ok(())),
        ("sslmode=prefer".to_owned(), Ok(())),
        ("sslmode=require".to_owned(), Ok(())),
        ("sslmode=verify-ca".to_owned(), Err("postgres.tls")),
        (format!("sslmode=verify-ca&{root}"), Ok(())),
        ("sslmode=verify-full".to_owned(), Err("postgres.tls")),
        (format!("sslmode=verify-full&{root}"), Ok(())),
        (format!("sslmode=verify-full&{root}&channel_binding=require"), Ok(())),
        ("sslmode=require&channel_binding=disable".to_owned(), Ok(())),
        ("sslmode=verify-full&sslrootcert=/nowhere/root.pem".to_owned(), Err("postgres.tls")),
    ] {
        for host in ["127.0.0.1", "localhost"] {
            let found = opens(&encrypted, RIGHT, host, &parameters).await;
            assert_eq!(found, expected.map_err(str::to_owned), "{parameters} at {host}");
        }
    }
    assert_eq!(opens(&encrypted, WRONG, "localhost", "sslmode=prefer").await, Err("postgres.password_rejected".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_for_another_name_passes_verify_ca_alone() {
    let server = server(Postgres::options(16).tls_for("DNS:db.example").auth(Auth::ScramSha256));
    let root = format!("sslrootcert={}", server.authority().certificate().display());
    assert_eq!(opens(&server, RIGHT, "127.0.0.1", &format!("sslmode=verify-ca&{root}")).await, Ok(()));
    assert_eq!(opens(&server, RIGHT, "127.0.0.1", &format!("sslmode=require&{root}")).await, Ok(()));
    let refused = Err("postgres.tls".to_owned());
    assert_eq!(opens(&server, RIGHT, "127.0.0.1", &format!("sslmode=verify-full&{root}")).await, refused);
    // With the roots of another authority not even `require` goes on.
    let folder = tempfile::tempdir().unwrap();
    let other = crate::servers::tls::Authority::create(folder.path(), "other");
    let other = format!("sslmode=require&sslrootcert={}", other.certificate().display());
    assert_eq!(opens(&server, RIGHT, "127.0.0.1", &other).await, refused);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_certificate_is_shown_where_the_server_asks_for_one() {
    let server = server(Postgres::options(15).tls().auth(Auth::Certificate));
    let root = format!("sslmode=verify-full&sslrootcert={}", server.authority().certificate().display());
    let identity = server.client_identity("app");
    let shown = format!("{root}&sslcert={}&sslkey={}", identity.certificate.display(), identity.key.display());
    assert_eq!(opens(&server, "app", "localhost", &shown).await, Ok(()));
    assert_eq!(opens(&server, "app", "localhost", &root).await, Err("postgres.login_refused".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unix_socket_needs_no_tls_and_no_password() {
    let server = server(Postgres::options(15).auth(Auth::ScramSha256));
    let folder = server.sql("show unix_socket_directories");
    assert_eq!(opens(&server, "postgres", "", &format!("host={folder}")).await, Ok(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshot_and_stream_go_through_tls_and_a_bound_channel() {
    let server = server(Postgres::options(17).tls().tls_only().auth(Auth::ScramSha256));
    server.sql("alter table t add v text; insert into t select i, repeat('x', 1000) from generate_series(1, 5000) i");
    let url = format!(
        "postgres://{RIGHT}@localhost:{}/postgres?sslmode=verify-full&channel_binding=require&sslrootcert={}",
        server.port(),
        server.authority().certificate().display()
    );
    let mut feed = Feed::open(&server, &["public.t"], json!({ "url": url })).await;
    feed.until_snapshots(1).await;
    server.sql("insert into t select i, repeat('y', 1000) from generate_series(5001, 15000) i");
    feed.until_images(15_000).await;
    assert!(feed.images.iter().zip(1..).all(|(image, id)| image.get("id") == id.to_string()));
    let encrypted = "select bool_and(ssl) from pg_stat_ssl join pg_stat_activity using (pid) where usename = 'app'";
    assert_eq!(server.sql(encrypted), "t");
}

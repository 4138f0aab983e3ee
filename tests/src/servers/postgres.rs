//! Real PostgreSQL servers, versions 15 to 18, ready for logical replication.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use super::process::Process;
use super::tls::{Authority, Identity};
use super::{cache_dir, free_port, require, tail, wait_for};

/// The versions that the source is tested against.
pub const VERSIONS: [u32; 4] = [15, 16, 17, 18];

/// How clients over TCP prove who they are. The superuser's own way in, the Unix socket, always trusts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Auth {
    Trust,
    ScramSha256,
    Md5,
    /// `password`: in clear text.
    Password,
    /// A client certificate whose common name is the user.
    Certificate,
}

impl Auth {
    fn method(self) -> &'static str {
        match self {
            Auth::Trust => "trust",
            Auth::ScramSha256 => "scram-sha-256",
            Auth::Md5 => "md5",
            Auth::Password => "password",
            Auth::Certificate => "cert",
        }
    }
}

/// What a server starts with; see [`Postgres::options`].
#[derive(Debug, Clone)]
pub struct Options {
    version: u32,
    auth: Auth,
    tls_names: Option<String>,
    tls_only: bool,
    settings: Vec<(String, String)>,
}

impl Options {
    /// How TCP clients log in (default: `trust`).
    pub fn auth(mut self, auth: Auth) -> Self {
        self.auth = auth;
        self
    }

    /// TLS on, with a certificate of its own authority for `localhost` and 127.0.0.1.
    pub fn tls(self) -> Self {
        self.tls_for("DNS:localhost,IP:127.0.0.1")
    }

    /// TLS on, with a certificate for other names: `verify-full` must refuse it, `verify-ca` must not.
    pub fn tls_for(mut self, names: &str) -> Self {
        self.tls_names = Some(names.to_owned());
        self
    }

    /// TCP clients without TLS are refused.
    pub fn tls_only(mut self) -> Self {
        self.tls_only = true;
        self
    }

    /// A server setting, as in postgresql.conf.
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts the server and waits until it answers.
    pub fn start(self) -> Postgres {
        Postgres::launch(self)
    }
}

/// A running server. Dropping it stops it (`immediate`) and removes its folder.
#[derive(Debug)]
pub struct Postgres {
    process: Option<Process>,
    options: Options,
    bin: PathBuf,
    port: u16,
    authority: Option<Authority>,
    dir: tempfile::TempDir,
}

impl Postgres {
    /// A server that trusts everybody on the loopback interface, superuser `postgres`.
    pub fn start(version: u32) -> Postgres {
        Self::options(version).start()
    }

    /// Options for a server of this major version.
    pub fn options(version: u32) -> Options {
        Options { version, auth: Auth::Trust, tls_names: None, tls_only: false, settings: Vec::new() }
    }

    fn launch(options: Options) -> Postgres {
        let bin = binaries(options.version);
        // Short, since a socket's path holds at most 107 bytes.
        let dir = tempfile::Builder::new().prefix("mr-pg-").tempdir_in("/tmp").expect("a temporary folder");
        let template = template(options.version, &bin);
        copy_tree(&template, &dir.path().join("data"));
        let authority = options.tls_names.as_ref().map(|names| certify(dir.path(), names));
        fs::write(dir.path().join("data/pg_hba.conf"), hba(&options)).expect("pg_hba.conf");
        give_away(dir.path());
        let mut server = Postgres { process: None, options, bin, port: 0, authority, dir };
        server.boot();
        server
    }

    /// Starts the process on a free port; on another one if that was taken in between.
    fn boot(&mut self) {
        for attempt in 1..=3 {
            if self.port == 0 || attempt > 1 {
                self.port = free_port();
            }
            if self.try_boot() {
                return;
            }
        }
        panic!("PostgreSQL {} does not start:\n{}", self.options.version, tail(&self.log_file()));
    }

    fn try_boot(&mut self) -> bool {
        let socket = self.dir.path().display().to_string();
        let mut args: Vec<String> = drop_root(&self.bin.join("postgres"));
        let program = args.remove(0);
        args.extend(["-D".to_owned(), format!("{socket}/data"), "-p".to_owned(), self.port.to_string()]);
        args.extend(["-k".to_owned(), socket]);
        for (name, value) in self.settings() {
            args.extend(["-c".to_owned(), format!("{name}={value}")]);
        }
        // QUIT is the immediate shutdown.
        let process = Process::start(Path::new(&program), &args, &self.log_file(), "QUIT");
        let what = format!("the start of PostgreSQL {}", self.options.version);
        let up = wait_for(
            &what,
            Duration::from_secs(60),
            || tail(&self.log_file()),
            || {
                if !process.is_running() {
                    return Some(false);
                }
                self.try_sql("select 1").is_ok().then_some(true)
            },
        );
        self.process = up.then_some(process);
        up
    }

    fn settings(&self) -> Vec<(String, String)> {
        // fsync=off is enough for speed. synchronous_commit stays on: without it a slot does not see a commit until
        // the WAL writer flushes.
        let base = [
            ("listen_addresses", "127.0.0.1"),
            ("wal_level", "logical"),
            ("max_wal_senders", "16"),
            ("max_replication_slots", "16"),
            ("max_prepared_transactions", "10"),
            ("fsync", "off"),
            ("full_page_writes", "off"),
            ("shared_buffers", "64MB"),
            ("logging_collector", "off"),
        ];
        let mut all: Vec<(String, String)> = base.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        if self.authority.is_some() {
            let file = |name: &str| self.dir.path().join(name).display().to_string();
            all.extend([
                ("ssl".to_owned(), "on".to_owned()),
                ("ssl_cert_file".to_owned(), file("server.crt")),
                ("ssl_key_file".to_owned(), file("server.key")),
                ("ssl_ca_file".to_owned(), file("authority.crt")),
            ]);
        }
        if self.options.auth == Auth::Md5 {
            all.push(("password_encryption".to_owned(), "md5".to_owned()));
        }
        all.extend(self.options.settings.iter().cloned());
        all
    }

    /// Stops it as a crash does (`immediate`: the next start recovers from the WAL), keeping data and port.
    pub fn stop(&mut self) {
        self.process = None;
    }

    /// Starts it again after [`Postgres::stop`], on the same port.
    pub fn start_again(&mut self) {
        self.process = None;
        assert!(self.try_boot(), "PostgreSQL does not start again:\n{}", tail(&self.log_file()));
    }

    /// The process, to stop (`STOP`) or continue it by a signal.
    pub fn process(&self) -> &Process {
        self.process.as_ref().expect("a server that was not stopped")
    }

    pub fn version(&self) -> u32 {
        self.options.version
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// `postgres://postgres@127.0.0.1:PORT/postgres`.
    pub fn url(&self) -> String {
        self.url_as("postgres", None, "postgres")
    }

    /// A URL for another user and database; the password needs no escaping if it is alphanumeric.
    pub fn url_as(&self, user: &str, password: Option<&str>, database: &str) -> String {
        let secret = password.map(|word| format!(":{word}")).unwrap_or_default();
        format!("postgres://{user}{secret}@127.0.0.1:{}/{database}", self.port)
    }

    /// The authority behind the server's certificate: its root is what `sslrootcert` takes.
    ///
    /// # Panics
    /// Without TLS.
    pub fn authority(&self) -> &Authority {
        self.authority.as_ref().expect("a server with TLS")
    }

    /// A client certificate for this user, signed by the authority that the server trusts.
    pub fn client_identity(&self, user: &str) -> Identity {
        self.authority().issue(user, "DNS:client")
    }

    /// Runs SQL as the superuser in database `postgres`; the answer is psql's unaligned text, a line a row, fields
    /// separated by `|`, without headers.
    ///
    /// # Panics
    /// With the server's message if it refuses.
    pub fn sql(&self, sql: &str) -> String {
        self.try_sql(sql).unwrap_or_else(|message| panic!("{message}\nin: {sql}"))
    }

    /// As [`Postgres::sql`], the refusal as a value. Several statements run in one transaction unless they hold
    /// transaction commands.
    ///
    /// # Errors
    /// What psql printed.
    pub fn try_sql(&self, sql: &str) -> Result<String, String> {
        self.try_sql_in("postgres", sql)
    }

    /// As [`Postgres::try_sql`] in another database.
    ///
    /// # Errors
    /// What psql printed.
    pub fn try_sql_in(&self, database: &str, sql: &str) -> Result<String, String> {
        answer(self.psql(database).args(["-c", sql]).output().expect("psql"))
    }

    /// Runs a script, each statement for itself, as `psql -f` does.
    ///
    /// # Panics
    /// With the server's message if it refuses.
    pub fn script(&self, file: &Path) -> String {
        answer(self.psql("postgres").arg("-f").arg(file).output().expect("psql"))
            .unwrap_or_else(|text| panic!("{text}"))
    }

    /// A psql command that is connected to this server over its Unix socket, for tests that need their own arguments
    /// or a session that stays open.
    pub fn psql(&self, database: &str) -> Command {
        let mut command = Command::new(client("psql"));
        command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", database]);
        command.arg("-h").arg(self.dir.path()).args(["-p", &self.port.to_string()]).stdin(Stdio::null());
        command
    }

    /// Another client program (`pgbench`, `pg_recvlogical`) with the connection in its environment (`PGHOST` …).
    pub fn tool(&self, name: &str) -> Command {
        let mut command = Command::new(client(name));
        command.env("PGHOST", self.dir.path()).env("PGPORT", self.port.to_string());
        command.env("PGUSER", "postgres").env("PGDATABASE", "postgres").stdin(Stdio::null());
        command
    }

    /// What a slot of the plugin `test_decoding` decodes now, without consuming it: a line a message. The oracle of
    /// the exactly-once tests.
    pub fn decoded(&self, slot: &str) -> Vec<String> {
        let options = "'include-xids', '1', 'include-timestamp', '0', 'skip-empty-xacts', '1'";
        let rows = self.sql(&format!("select data from pg_logical_slot_peek_changes('{slot}', null, null, {options})"));
        rows.lines().map(str::to_owned).collect()
    }

    /// The server's own log.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.log_file()).unwrap_or_default()).into_owned()
    }

    fn log_file(&self) -> PathBuf {
        self.dir.path().join("server.log")
    }
}

fn answer(out: Output) -> Result<String, String> {
    if out.status.success() {
        Ok(String::from_utf8_lossy(&out.stdout).trim_end().to_owned())
    } else {
        Err(String::from_utf8_lossy(&out.stderr).trim_end().to_owned())
    }
}

fn hba(options: &Options) -> String {
    let kind = if options.tls_only || options.auth == Auth::Certificate { "hostssl" } else { "host" };
    let method = options.auth.method();
    format!(
        "local all all trust\nlocal replication all trust\n{kind} all all 127.0.0.1/32 {method}\n\
         {kind} replication all 127.0.0.1/32 {method}\n"
    )
}

fn certify(dir: &Path, names: &str) -> Authority {
    let authority = Authority::create(dir, "authority");
    authority.issue("server", names);
    authority
}

/// Where the server programs of this version are, in a place that the server's user may read.
fn binaries(version: u32) -> PathBuf {
    assert!(VERSIONS.contains(&version), "no PostgreSQL {version} is set up");
    let debian = PathBuf::from(format!("/usr/lib/postgresql/{version}/bin"));
    if debian.join("postgres").exists() {
        return debian;
    }
    let cached = require(cache_dir().join(format!("postgres/{version}/bin/postgres")));
    let root = cached.parent().and_then(Path::parent).expect("bin/postgres has two parents").to_owned();
    if !is_root() || readable_by_server_user(&cached) {
        return root.join("bin");
    }
    // The cache is under a home that only root may enter.
    let public = shared_dir().join(format!("postgres-{version}"));
    publish(&public, |staged| copy_tree(&root, staged));
    public.join("bin")
}

/// A client program: the newest one, from the cache (without TLS, which the Unix socket does not need).
fn client(name: &str) -> PathBuf {
    let cached = cache_dir().join("postgres/client/bin").join(name);
    let debian = PathBuf::from("/usr/lib/postgresql/15/bin").join(name);
    if cached.exists() || !debian.exists() { require(cached) } else { debian }
}

/// An initialised data folder to copy: 0.2 s instead of initdb's seconds.
fn template(version: u32, bin: &Path) -> PathBuf {
    let public = shared_dir().join(format!("template-{version}"));
    publish(&public, |staged| {
        fs::create_dir(staged).expect("a folder for initdb");
        give_away(staged);
        let mut args = drop_root(&bin.join("initdb"));
        let mut command = Command::new(args.remove(0));
        command.args(args).arg("-D").arg(staged).args(["-U", "postgres", "-A", "trust", "-E", "UTF8"]);
        let out = command.args(["--locale=C", "--no-sync"]).output().expect("initdb");
        assert!(out.status.success(), "initdb: {}", String::from_utf8_lossy(&out.stderr));
    });
    public
}

/// Makes `target` once for all test processes: built beside it, then renamed, so that nobody sees half of it.
fn publish(target: &Path, build: impl FnOnce(&Path)) {
    if target.exists() {
        return;
    }
    let parent = target.parent().expect("a folder inside the shared one");
    let staging = tempfile::Builder::new().prefix("new-").tempdir_in(parent).expect("a folder to build in");
    open_to_all(staging.path());
    let staged = staging.path().join("it");
    build(&staged);
    if fs::rename(&staged, target).is_err() {
        assert!(target.exists(), "cannot create {}", target.display()); // else another process was first
    }
}

/// A folder that every test process of this user shares.
fn shared_dir() -> PathBuf {
    let dir = std::env::temp_dir().join(format!("millrace-tests-{}", user_id()));
    fs::create_dir_all(&dir).expect("the shared folder");
    open_to_all(&dir);
    dir
}

fn open_to_all(dir: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).expect("a folder of our own");
}

fn copy_tree(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status().expect("cp");
    assert!(status.success(), "cp -a {} {}", from.display(), to.display());
}

fn user_id() -> u32 {
    use std::os::unix::fs::MetadataExt as _;
    fs::metadata("/proc/self").expect("/proc").uid()
}

fn is_root() -> bool {
    user_id() == 0
}

/// PostgreSQL refuses to run as root: the user to run it as then.
fn server_user() -> &'static str {
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    if users.lines().any(|line| line.starts_with("postgres:")) { "postgres" } else { "nobody" }
}

/// The command line that runs `program` as the server's user.
fn drop_root(program: &Path) -> Vec<String> {
    let program = program.display().to_string();
    if !is_root() {
        return vec![program];
    }
    let user = server_user();
    ["setpriv", "--reuid", user, "--regid"]
        .map(str::to_owned)
        .into_iter()
        .chain([group(user), "--init-groups".to_owned(), "--".to_owned(), program])
        .collect()
}

/// The user's own group by number: `nobody`'s is called otherwise.
fn group(user: &str) -> String {
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let entry = users.lines().find_map(|line| line.strip_prefix(&format!("{user}:")).map(str::to_owned));
    entry.and_then(|rest| rest.split(':').nth(2).map(str::to_owned)).unwrap_or_else(|| "65534".to_owned())
}

fn give_away(path: &Path) {
    if is_root() {
        let owner = format!("{}:{}", server_user(), group(server_user()));
        let status = Command::new("chown").args(["-R", &owner]).arg(path).status().expect("chown");
        assert!(status.success(), "chown {owner} {}", path.display());
    }
}

fn readable_by_server_user(file: &Path) -> bool {
    let mut args = drop_root(Path::new("test"));
    let status = Command::new(args.remove(0)).args(args).arg("-x").arg(file).status();
    status.is_ok_and(|status| status.success())
}

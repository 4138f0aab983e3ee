//! Asks WASI for everything that the standard library can reach, and writes what it was answered: the column `note` names
//! what is asked for, row by row. Built for `wasm32-wasip2`.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::{TcpStream, ToSocketAddrs, UdpSocket};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use millrace_sdk::prelude::*;

struct Probe;

impl Transform for Probe {
    fn configure(_: &Config) -> Result<Self, Error> {
        Ok(Probe)
    }

    fn plan(&self, _: &Schema, plan: &mut TransformPlan) -> Result<(), Error> {
        let Some(note) = plan.column("note") else { return Ok(()) };
        plan.map::<Text>(note, |asked, out| {
            out.push_str(&answer(asked));
            Ok(())
        });
        Ok(())
    }
}

fn answer(asked: &str) -> String {
    match asked {
        "wall-clock" => format!("{:?}", SystemTime::now().duration_since(UNIX_EPOCH)),
        "monotonic-clock" => {
            let start = Instant::now();
            // Work that a running clock would show.
            let sum = (0..1_000_000u64).fold(1, |sum: u64, i| std::hint::black_box(sum.wrapping_mul(31) ^ i));
            format!("{:?} {}", start.elapsed(), sum != 0)
        }
        "sleep" => {
            std::thread::sleep(Duration::from_nanos(1));
            "slept".to_string()
        }
        "sleep-for-a-day" => {
            std::thread::sleep(Duration::from_secs(86_400));
            "slept".to_string()
        }
        "entropy" => format!("{:016x}", RandomState::new().hash_one(asked)),
        "hash-map" => {
            let map: HashMap<String, usize> = (0..20).map(|i| (format!("key {i}"), i)).collect();
            map.keys().map(String::as_str).collect::<Vec<_>>().join(",")
        }
        "environment" => format!("{:?}", std::env::vars().collect::<Vec<_>>()),
        "arguments" => format!("{:?}", std::env::args().collect::<Vec<_>>()),
        "folder" => format!("{:?}", std::fs::read_dir("/").map(|_| ()).map_err(|e| e.kind())),
        "read" => format!("{:?}", std::fs::read("/etc/passwd").map(|_| ()).map_err(|e| e.kind())),
        "write" => format!("{:?}", std::fs::write("/tmp/probe", "x").map_err(|e| e.kind())),
        "tcp" => format!("connected: {}", TcpStream::connect("127.0.0.1:22").is_ok()),
        "udp" => format!("bound: {}", UdpSocket::bind("127.0.0.1:0").is_ok()),
        "name" => format!("resolved: {}", ("localhost", 80).to_socket_addrs().is_ok()),
        "stdout" => {
            println!("a line for the log");
            eprintln!("and one of warning");
            "written".to_string()
        }
        "stdin" => {
            let mut line = String::new();
            format!("{:?}", std::io::stdin().read_line(&mut line).map_err(|e| e.kind()))
        }
        "exit" => std::process::exit(3),
        "panic" => panic!("asked to"),
        _ => format!("unknown: {asked}"),
    }
}

millrace_sdk::transform!(Probe);

//! Parses the arguments after `compare`.

use std::ffi::OsString;
use std::path::PathBuf;

use lexopt::Arg::{Long, Short, Value};

use super::super::report::Output;
use super::contender::{BEFORE, ECHO, FLOOR, KINDS, Kind, MQTT_KINDS, RINGCAST};
use super::measures::{MEASURES, MQTT_MEASURES, Measure};

/// The servers and measures to compare, and the number of rounds.
#[derive(Debug)]
pub(crate) struct Options {
    /// The whole command line.
    pub(crate) command: String,
    pub(crate) protocol: Protocol,
    pub(crate) rounds: usize,
    pub(crate) memory_runs: usize,
    servers: Vec<String>,
    measures: Vec<String>,
    pub(crate) system_calls: bool,
    pub(crate) peers: PathBuf,
    pub(crate) json: Option<PathBuf>,
    pub(crate) markdown: Option<PathBuf>,
    /// The page and the plots to write.
    pub(crate) report: Output,
}

/// The protocol of the clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    SocketCluster,
    Mqtt,
}

impl Protocol {
    /// The servers that understand it.
    pub(crate) fn kinds(self) -> &'static [Kind] {
        match self {
            Protocol::SocketCluster => &KINDS,
            Protocol::Mqtt => &MQTT_KINDS,
        }
    }

    pub(crate) fn measures(self) -> &'static [Measure] {
        match self {
            Protocol::SocketCluster => &MEASURES,
            Protocol::Mqtt => &MQTT_MEASURES,
        }
    }

    /// The server that shows the limit of the machine.
    fn limit(self) -> &'static str {
        match self {
            Protocol::SocketCluster => ECHO,
            Protocol::Mqtt => FLOOR,
        }
    }
}

pub(crate) enum Asked {
    Run(Box<Options>),
    Help,
}

impl Options {
    pub(crate) fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Asked, lexopt::Error> {
        let words: Vec<OsString> = words.into_iter().collect();
        let shown: Vec<String> = words
            .iter()
            .map(|word| word.to_string_lossy().into_owned())
            .collect();
        let mut options = Options {
            command: format!("cargo bench --bench load -- compare {}", shown.join(" "))
                .trim_end()
                .to_owned(),
            protocol: Protocol::SocketCluster,
            rounds: ROUNDS,
            memory_runs: MEMORY_RUNS,
            servers: Vec::new(),
            measures: Vec::new(),
            system_calls: false,
            peers: PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/target/peers")),
            json: None,
            markdown: None,
            report: Output::default(),
        };
        let mut parser = lexopt::Parser::from_args(words);
        while let Some(word) = parser.next()? {
            match word {
                Long("quick") => {
                    (options.rounds, options.memory_runs) = (QUICK_ROUNDS, 1);
                    options.servers = vec![RINGCAST.to_owned(), options.protocol.limit().to_owned()];
                }
                // Before the options that depend on it.
                Long("mqtt") => options.protocol = Protocol::Mqtt,
                Long("rounds") => options.rounds = at_least_one(&mut parser)?,
                Long("memory-runs") => options.memory_runs = at_least_one(&mut parser)?,
                Long("servers") => {
                    let known: Vec<&str> = options.protocol.kinds().iter().map(|kind| kind.name).collect();
                    options.servers = list(&mut parser, &known)?;
                }
                Long("measures") => {
                    let known: Vec<&str> = options
                        .protocol
                        .measures()
                        .iter()
                        .map(|measure| measure.name)
                        .collect();
                    options.measures = list(&mut parser, &known)?;
                }
                Long("system-calls") => options.system_calls = true,
                Long("peers") => options.peers = parser.value()?.into(),
                Long("command") => options.command = lexopt::ValueExt::string(parser.value()?)?,
                Long("json") => options.json = Some(parser.value()?.into()),
                Long("html") => options.report.html = Some(parser.value()?.into()),
                Long("svg") => options.report.svg = Some(parser.value()?.into()),
                Long("markdown") => options.markdown = Some(parser.value()?.into()),
                Long("help") | Short('h') => return Ok(Asked::Help),
                Long(_) | Short(_) | Value(_) => return Err(word.unexpected()),
            }
        }
        Ok(Asked::Run(Box::new(options)))
    }

    pub(crate) fn wants_server(&self, name: &str) -> bool {
        match &self.servers[..] {
            [] => name != BEFORE,
            named => named.iter().any(|server| server == name),
        }
    }

    pub(crate) fn wants_measure(&self, name: &str) -> bool {
        self.measures.is_empty() || self.measures.iter().any(|measure| measure == name)
    }
}

fn at_least_one(parser: &mut lexopt::Parser) -> Result<usize, lexopt::Error> {
    lexopt::ValueExt::parse_with(&parser.value()?, |text| match text.parse::<usize>() {
        Ok(0) => Err("at least 1 is needed".to_owned()),
        Ok(count) => Ok(count),
        Err(error) => Err(error.to_string()),
    })
}

/// Names separated by commas.
fn list(parser: &mut lexopt::Parser, known: &[&str]) -> Result<Vec<String>, lexopt::Error> {
    lexopt::ValueExt::parse_with(&parser.value()?, |text| {
        let names: Vec<String> = text.split(',').map(str::to_owned).collect();
        match names.iter().find(|name| !known.contains(&name.as_str())) {
            Some(name) => Err(format!("there is no {name}; there are {}", known.join(", "))),
            None => Ok(names),
        }
    })
}

const ROUNDS: usize = 30;
const MEMORY_RUNS: usize = 3;
const QUICK_ROUNDS: usize = 3;

pub(crate) const HELP: &str = "\
Drives Ringcast and other servers in turn, in one run, and prints the cost of each and the ratio of Ringcast's cost to it.

Usage: cargo bench --bench load -- compare [options]

  --mqtt             MQTT clients instead of SocketCluster's, other servers and other measures; the first option
  --rounds N         slices of 60 ms for each server and measure [30]
  --memory-runs N    fresh processes whose memory is measured [3]
  --servers LIST     any of ringcast,echo,bun,socketcluster,socketcluster-cluster [all], and ringcast-before: another build,
                     whose binary is in the folder of --peers under this name
                     with --mqtt any of ringcast,ringcast-before,floor,mosquitto,rumqttd,nats [all but ringcast-before]
  --measures LIST    any of ping-1,ping-16,fan-out-8,fan-out-1,channels,connect,memory [all]
                     with --mqtt any of p1,p16,q1p1,q1p16,q2p1,q2p16,fan1000,fan1000-1,q1fan1000,fan100,wild100,wildall,
                     fanin,churn,idle,session,queued,queueing,coming-back,retained,retaining,reading [all]
  --system-calls     also counts system calls, with strace
  --quick            only Ringcast and the echo (with --mqtt the floor), 3 rounds
  --peers DIRECTORY  the folder in which benches/peers/install.sh has installed the servers [target/peers]
  --command TEXT     the command that the tables name [this command]
  --json FILE        the result, for programs and the report
  --html FILE        the result as a page with plots
  --svg DIRECTORY    each plot as a file
  --markdown FILE    the tables
";

//! Parses the arguments after the name of the bench.

use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use lexopt::Arg;
use nix::unistd::Pid;

use super::machine;
use super::mqtt::{Filters, Qos, Speech, Version};
use super::report::Output;
use super::scenario::Scenario;

/// The options of a run. For an option that is absent, the scenario has a default.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    pub(crate) scenario: Option<Scenario>,
    pub(crate) connections: Option<u32>,
    pub(crate) in_flight: Option<u32>,
    pub(crate) rate: Option<f64>,
    pub(crate) seconds: Option<f64>,
    pub(crate) messages: Option<u64>,
    pub(crate) ping_every: Option<f64>,
    pub(crate) publishers: Option<u32>,
    pub(crate) subscribers: Option<u32>,
    pub(crate) channels: Option<u32>,
    pub(crate) slow: Option<u32>,
    pub(crate) bytes: Option<usize>,
    /// The protocol is MQTT.
    is_mqtt: bool,
    /// How clients speak if it is.
    speech: Option<Speech>,
    pub(crate) pending: Option<u32>,
    pub(crate) threads: Option<u32>,
    pub(crate) cpus: Option<Vec<usize>>,
    pub(crate) server_cpus: Option<Vec<usize>>,
    pub(crate) server_cores: Option<usize>,
    /// Environment variables for the server that is started.
    pub(crate) settings: Vec<(String, String)>,
    pub(crate) address: Option<SocketAddr>,
    pub(crate) path: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) pids: Vec<Pid>,
    pub(crate) admin: Option<SocketAddr>,
    pub(crate) json: Option<PathBuf>,
    /// The page and the plots to write.
    pub(crate) report: Output,
    /// The arguments as given.
    pub(crate) words: String,
}

/// The command that the arguments ask for.
pub(crate) enum Asked {
    Run(Box<Options>),
    Help,
}

impl Options {
    /// Parses the arguments.
    pub(crate) fn parse(words: Vec<OsString>) -> Result<Asked, UsageError> {
        let shown: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
        let mut options = Options {
            words: shown.join(" "),
            ..Options::default()
        };
        let mut parser = lexopt::Parser::from_args(words);
        while let Some(word) = parser.next()? {
            let flag = match word {
                Arg::Short('h') | Arg::Long("help") => return Ok(Asked::Help),
                Arg::Value(name) if options.scenario.is_none() => {
                    options.scenario = Some(Scenario::named(&name.to_string_lossy())?);
                    continue;
                }
                Arg::Long(flag) => flag.to_owned(),
                Arg::Short(_) | Arg::Value(_) => return Err(word.unexpected().into()),
            };
            let value = parser.value()?.to_string_lossy().into_owned();
            options.set(&flag, &value)?;
        }
        Ok(if options.scenario.is_some() {
            Asked::Run(Box::new(options))
        } else {
            Asked::Help
        })
    }

    /// How the clients speak MQTT; `None` if they speak SocketCluster.
    pub(crate) fn mqtt(&self) -> Option<Speech> {
        self.is_mqtt.then(|| self.speech.unwrap_or(Speech::PLAIN))
    }

    fn set(&mut self, flag: &str, value: &str) -> Result<(), UsageError> {
        let cpus = || machine::parse_cpus(value).ok_or_else(|| UsageError::value(flag, value));
        match flag {
            "connections" | "clients" => self.connections = Some(at_least_one(flag, value)?),
            "in-flight" => self.in_flight = Some(at_least_one(flag, value)?),
            "rate" => self.rate = Some(positive(flag, value)?),
            "seconds" => self.seconds = Some(positive(flag, value)?),
            "messages" => self.messages = Some(at_least_one(flag, value)?.into()),
            "ping-every" => self.ping_every = Some(positive(flag, value)?),
            "publishers" => self.publishers = Some(at_least_one(flag, value)?),
            "subscribers" => self.subscribers = Some(at_least_one(flag, value)?),
            "channels" => self.channels = Some(number(flag, value)?),
            "slow" => self.slow = Some(at_least_one(flag, value)?),
            "bytes" => self.bytes = Some(number(flag, value)?),
            "protocol" => {
                (self.is_mqtt, self.speech().version) = match value {
                    "socketcluster" => (false, Version::V4),
                    "mqtt" => (true, Version::V4),
                    "mqtt5" => (true, Version::V5),
                    _ => return Err(UsageError::value(flag, value)),
                };
            }
            "qos" => {
                let qos = Qos::of(number(flag, value)?);
                self.speech().qos = qos.ok_or_else(|| UsageError::value(flag, value))?;
            }
            "filters" => {
                self.speech().filters = match value {
                    "exact" => Filters::Exact,
                    "wildcard" => Filters::Wildcard,
                    _ => return Err(UsageError::value(flag, value)),
                };
            }
            "keep-alive" => self.speech().keep_alive_s = number(flag, value)?,
            "pending" => self.pending = Some(at_least_one(flag, value)?),
            "threads" => self.threads = Some(at_least_one(flag, value)?),
            "cpus" => self.cpus = Some(cpus()?),
            "server-cpus" => self.server_cpus = Some(cpus()?),
            "server-cores" => self.server_cores = Some(at_least_one(flag, value)? as usize),
            "set" => {
                let (name, value) = value
                    .split_once('=')
                    .ok_or_else(|| UsageError::value(flag, value))?;
                let name = format!("RINGCAST_{}", name.to_uppercase().replace(['-', '.'], "_"));
                self.settings.push((name, value.to_owned()));
            }
            "address" => self.address = Some(number(flag, value)?),
            "path" => self.path = Some(value.to_owned()),
            "name" => self.name = Some(value.to_owned()),
            "pid" => self.pids.push(Pid::from_raw(number(flag, value)?)),
            "admin" => self.admin = Some(number(flag, value)?),
            "json" => self.json = Some(value.into()),
            "html" => self.report.html = Some(value.into()),
            "svg" => self.report.svg = Some(value.into()),
            _ => return Err(UsageError(format!("--{flag} is not known"))),
        }
        Ok(())
    }

    fn speech(&mut self) -> &mut Speech {
        self.speech.get_or_insert(Speech::PLAIN)
    }
}

fn number<T: FromStr>(flag: &str, value: &str) -> Result<T, UsageError> {
    value.parse().map_err(|_| UsageError::value(flag, value))
}

fn at_least_one(flag: &str, value: &str) -> Result<u32, UsageError> {
    number(flag, value).and_then(|count| match count {
        0 => Err(UsageError::value(flag, value)),
        count => Ok(count),
    })
}

fn positive(flag: &str, value: &str) -> Result<f64, UsageError> {
    number(flag, value).and_then(|count: f64| {
        if count > 0.0 && count.is_finite() {
            Ok(count)
        } else {
            Err(UsageError::value(flag, value))
        }
    })
}

/// The arguments are wrong.
#[derive(Debug)]
pub(crate) struct UsageError(pub(crate) String);

impl UsageError {
    fn value(flag: &str, value: &str) -> UsageError {
        UsageError(format!("--{flag} {value} is not a valid value"))
    }
}

impl fmt::Display for UsageError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} (see --help)", self.0)
    }
}

impl From<lexopt::Error> for UsageError {
    fn from(error: lexopt::Error) -> UsageError {
        UsageError(error.to_string())
    }
}

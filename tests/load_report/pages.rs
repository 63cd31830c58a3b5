//! The pages that are made of results: of all kinds of results, and of almost empty ones.

use super::charts::{finite, well_formed};
use crate::compare::result::{Comparison, Contender, Measure, Outcome, Ratio, Spread, Target, Unit};
use crate::report::{Output, Results, command};
use crate::result::{
    CoreShare, Counts, Faults, Generator, Latency, Limit, Machine, Phase, Run, Sample, ServerDescription,
    ServerUse,
};

#[test]
fn a_run_with_everything_has_every_figure() {
    let results = Results::from(run("ringcast"));
    let page = sound(&results);
    let names: Vec<String> = results.svgs().into_iter().map(|(name, _)| name).collect();
    assert_eq!(
        names,
        [
            "throughput-latency",
            "throughput-cpu",
            "connections-memory",
            "a-b-time",
            "a-b-ping",
            "a-b-cores-connections",
            "a-b-cores-messages"
        ]
    );
    assert!(
        page.contains("All 6,000 replies and deliveries were checked"),
        "{page}"
    );
    assert!(
        page.contains("256\u{a0}B each"),
        "the slope of memory over connections: {page}"
    );
    assert!(
        page.contains("The busiest has 1.20 times the mean of 50."),
        "{page}"
    );
}

#[test]
fn several_servers_get_a_panel_for_each_percentile() {
    let results = Results {
        runs: vec![run("ringcast"), run("another")],
        comparisons: Vec::new(),
    };
    let page = sound(&results);
    for words in [
        "latency, p50",
        "latency, p99",
        "latency, p99.9",
        ">another</text>",
    ] {
        assert!(page.contains(words), "{words}");
    }
}

#[test]
fn a_run_that_knows_next_to_nothing_still_makes_a_page() {
    let mut bare = run("a server");
    bare.phases = vec![Phase {
        name: "only".to_owned(),
        latency: Some(Latency::default()),
        server: Some(ServerUse::default()),
        ..Phase::default()
    }];
    bare.series = vec![Sample::default()];
    bare.cores.clear();
    sound(&Results::from(bare.clone()));
    bare.phases.clear();
    bare.series.clear();
    for runs in [vec![bare], Vec::new()] {
        sound(&Results {
            runs,
            comparisons: Vec::new(),
        });
    }
}

#[test]
fn faults_and_a_saturated_generator_are_reported_at_the_top() {
    let mut failed = run("ringcast");
    failed.phases[1].limit = Limit::Generator;
    failed.faults.add(|| "reply <7> came twice".to_owned());
    let page = sound(&Results::from(failed));
    let first_figure = page.find("<figure").unwrap();
    for words in [
        "reply &lt;7&gt; came twice",
        "The load generator was the limit, not the server, in: 20,000/s",
    ] {
        assert!(page.find(words).is_some_and(|at| at < first_figure), "{words}");
    }
    assert!(!page.contains("were checked"), "nothing is said to be right");
}

#[test]
fn a_rate_that_was_not_held_is_hollow() {
    let mut slow = run("ringcast");
    let hollow = |runs: Vec<Run>| {
        sound(&Results {
            runs,
            comparisons: Vec::new(),
        })
        .matches("class=\"dot open\"")
        .count()
    };
    assert_eq!(hollow(vec![slow.clone()]), 0);
    slow.phases[1].messages_per_second = 0.5 * slow.phases[1].offered_per_second.unwrap();
    assert_eq!(hollow(vec![slow]), 4, "three percentiles and the CPU");
}

#[test]
fn memory_that_stays_after_the_connections_have_gone_is_not_drawn() {
    let mut shrunk = run("ringcast");
    shrunk.series.push(Sample {
        at: 30.0,
        connections: 10,
        server_pss_bytes: Some(1 << 30),
        ..Sample::default()
    });
    let page = sound(&Results::from(shrunk));
    assert!(page.contains("256\u{a0}B each"), "{page}");
}

#[test]
fn a_comparison_says_which_targets_are_met_and_which_are_not() {
    let results = Results::from(comparison());
    let page = sound(&results);
    assert!(
        page.contains("1 of 2 targets are met; not 16 in flight ≤ 0.5 × Bun."),
        "{page}"
    );
    assert!(
        page.contains(">✓ ≤ 1.40×</text>") && page.contains(">✗ ≤ 0.50×</text>"),
        "{page}"
    );
    // The stricter of both targets, in the measure's unit: half of Bun's 0.7 µs, not 1.4 times the echo's 0.3.
    assert!(page.contains(">✗ ≤ 350\u{a0}ns</text>"), "{page}");
    assert!(page.contains("1.33× echo"), "{page}");
    let names: Vec<String> = results.svgs().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["comparison-targets", "comparison-ping-16"]);
}

#[test]
fn runs_and_comparisons_share_a_page() {
    let page = sound(&Results {
        runs: vec![run("ringcast")],
        comparisons: vec![comparison()],
    });
    assert!(page.contains("Throughput against latency") && page.contains("What each server costs"));
}

#[test]
fn a_comparison_without_measures_still_makes_a_page() {
    let mut nothing = comparison();
    nothing.measures.clear();
    nothing.servers.clear();
    sound(&Results::from(nothing));
}

#[test]
fn saved_results_of_both_kinds_are_drawn_from_their_files() {
    let directory = std::env::temp_dir().join(format!("ringcast-report-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let at = |name: &str| directory.join(name).into_os_string();
    std::fs::write(at("run.json"), serde_json::to_vec(&run("ringcast")).unwrap()).unwrap();
    std::fs::write(at("comparison.json"), serde_json::to_vec(&comparison()).unwrap()).unwrap();
    std::fs::write(at("neither.json"), "{}").unwrap();

    let words = [
        at("run.json"),
        at("comparison.json"),
        "--html".into(),
        at("page.html"),
        "--svg".into(),
        at("svg"),
    ];
    command(&words).unwrap();
    well_formed(&std::fs::read_to_string(at("page.html")).unwrap());
    assert!(directory.join("svg/connections-memory.svg").exists());
    assert!(directory.join("svg/comparison-ping-16.svg").exists());

    for wrong in [
        vec![at("run.json")],
        vec!["--html".into(), at("page.html")],
        vec![at("run.json"), "--html".into()],
        vec![at("run.json"), "--pdf".into(), at("page.pdf")],
        vec![at("missing.json"), "--html".into(), at("page.html")],
        vec![at("neither.json"), "--html".into(), at("page.html")],
    ] {
        assert!(command(&wrong).is_err(), "{wrong:?}");
    }
    std::fs::remove_dir_all(&directory).unwrap();
}

/// The page, after checks that must pass for every page.
fn sound(results: &Results) -> String {
    let page = results.html();
    well_formed(&page);
    finite(&page);
    for outside in ["<script", "http://", "https://", "url(", "@import"] {
        assert!(!page.contains(outside), "the page needs nothing else: {outside}");
    }
    for (name, svg) in results.svgs() {
        well_formed(&svg);
        finite(&svg);
        assert!(
            svg.contains("prefers-color-scheme:dark"),
            "{name} has its own themes"
        );
    }
    assert!(
        results.write(&Output::default()).is_ok(),
        "nothing asked for, nothing written"
    );
    page
}

fn run(server: &str) -> Run {
    let phase = |rate: f64, us: f64| Phase {
        name: format!("{:.0},000/s", rate / 1e3),
        seconds: 5.0,
        connections: 100,
        counts: Counts {
            replies: 3000,
            ..Counts::default()
        },
        offered_per_second: Some(rate),
        messages_per_second: rate,
        latency: Some(latency(us)),
        server: Some(ServerUse {
            cpu: rate / 1e5,
            cpu_us_per_ping: Some(4.4),
            ..ServerUse::default()
        }),
        ..Phase::default()
    };
    let sample = |second: u32| Sample {
        at: f64::from(second),
        phase: usize::from(second > 5),
        connections: u64::from(second) * 1000,
        messages_per_second: 1000.0,
        latency_p50_us: (second > 0).then_some(50.0),
        latency_p99_us: (second > 0).then_some(90.0),
        server_cpu: Some(0.2),
        server_pss_bytes: Some(5_000_000 + u64::from(second) * 256_000),
        kernel_slab_bytes: Some(300_000_000 + u64::from(second) * 8_192_000),
        ..Sample::default()
    };
    let core = |core: usize, connections: u64| CoreShare {
        core,
        connections,
        messages_received: 10,
        ..CoreShare::default()
    };
    Run {
        scenario: "a b".to_owned(),
        command: "a-b --rate 1 --path '<&>'".to_owned(),
        started_unix_ms: 0,
        machine: machine(),
        server: ServerDescription {
            name: server.to_owned(),
            version: None,
            address: "127.0.0.1:1".to_owned(),
            cores: Some(2),
            cpus: vec![0],
        },
        generator: Generator {
            threads: 1,
            cpus: vec![1],
            bytes_per_connection: None,
        },
        phases: vec![phase(10_000.0, 50.0), phase(20_000.0, 80.0)],
        series: (0..=10).map(sample).collect(),
        cores: vec![core(0, 60), core(1, 40)],
        faults: Faults::default(),
        notes: vec!["a note with <markup> & more".to_owned()],
    }
}

fn latency(us: f64) -> Latency {
    Latency {
        count: 1000,
        mean_us: us,
        p50_us: us,
        p90_us: us * 1.5,
        p99_us: us * 2.0,
        p999_us: us * 4.0,
        max_us: us * 9.0,
        curve: vec![(0.0, 0.0), (0.5, us), (0.99, us * 2.0), (1.0, us * 9.0)],
    }
}

fn comparison() -> Comparison {
    let spread = |median: f64| Spread {
        median,
        low: median * 0.97,
        high: median * 1.02,
    };
    let contender = |name: &str| Contender {
        name: name.to_owned(),
        title: name.to_owned(),
        version: "1 <2>".to_owned(),
        processes: 2,
    };
    let outcome = |server: &str, cost: f64| Outcome {
        server: server.to_owned(),
        cost: spread(cost),
        rounds: vec![cost],
        per_second: Some(spread(1e6)),
        deferred_share: None,
        generator_share: Some(1.0),
        server_share: Some(0.9),
        system_calls: vec![("read".to_owned(), 0.06)],
    };
    let ratio = |to: &str, ratio: f64| Ratio {
        to: to.to_owned(),
        ratio: spread(ratio),
    };
    let target = |to: &str, at_most: f64, met: bool| Target {
        to: Some(to.to_owned()),
        at_most,
        text: format!("≤ {at_most} × {to}"),
        met,
    };
    Comparison {
        command: "compare".to_owned(),
        started_unix_ms: 0,
        seconds: 1.0,
        machine: machine(),
        server_cpu: 0,
        generator_cpu: 1,
        rounds: 5,
        slice_ms: 60,
        warm_up_ms: 15,
        servers: ["ringcast", "echo", "Bun", "far"].map(contender).to_vec(),
        measures: vec![Measure {
            name: "ping-16".to_owned(),
            title: "16 in flight".to_owned(),
            unit: Unit::MicrosecondsPerMessage,
            outcomes: vec![
                outcome("ringcast", 0.4),
                outcome("echo", 0.3),
                outcome("Bun", 0.7),
                outcome("far", 8.0),
            ],
            ratios: vec![
                ratio("echo", 4.0 / 3.0),
                ratio("Bun", 4.0 / 7.0),
                ratio("far", 0.05),
            ],
            targets: vec![target("echo", 1.4, true), target("Bun", 0.5, false)],
        }],
        faults: Faults::default(),
        notes: vec!["& so on".to_owned()],
    }
}

fn machine() -> Machine {
    Machine {
        cpu_model: "A <CPU> & more".to_owned(),
        cpus: 2,
        memory_bytes: 1 << 34,
        kernel: "6.18".to_owned(),
        descriptors_max: 20_000,
    }
}

//! What a daemon counts, and the page that shows it in Prometheus' text format (version 0.0.4).

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt::Write;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;

use super::book::Refusal;
use super::control::Moved;
use crate::limits;

/// Counters since the start. On the supervisor's one thread.
#[derive(Debug, Default)]
pub(super) struct Metrics {
    sessions_ended: RefCell<BTreeMap<Outcome, u64>>,
    refused: RefCell<BTreeMap<Refusal, u64>>,
    accepted: Cell<u64>,
    lanes: Cell<u64>,
    in_bytes: Cell<u64>,
    out_bytes: Cell<u64>,
    files: Cell<u64>,
    deleted: Cell<u64>,
    problems: Cell<u64>,
    reloads: Cell<u64>,
    reloads_failed: Cell<u64>,
}

/// How sessions end, as far as a number says it. Workers name theirs; what they name must not become a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Outcome {
    Complete,
    Partial,
    Failed,
    Interrupted,
    Died,
}

impl Outcome {
    const ALL: [Outcome; 5] =
        [Outcome::Complete, Outcome::Partial, Outcome::Failed, Outcome::Interrupted, Outcome::Died];

    /// From a worker's word.
    pub(super) fn of(word: &str) -> Outcome {
        match word {
            "complete" => Outcome::Complete,
            "partial" | "vanished" | "max-delete" => Outcome::Partial,
            "interrupted" => Outcome::Interrupted,
            _ => Outcome::Failed,
        }
    }

    fn label(self) -> &'static str {
        match self {
            Outcome::Complete => "complete",
            Outcome::Partial => "partial",
            Outcome::Failed => "failed",
            Outcome::Interrupted => "interrupted",
            Outcome::Died => "died",
        }
    }
}

/// What is now, not since the start.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Gauges {
    pub(super) sessions: usize,
    pub(super) unauthenticated: usize,
    pub(super) draining: bool,
    pub(super) log_lines_dropped: u64,
}

fn add(counter: &Cell<u64>, amount: u64) {
    counter.set(counter.get().saturating_add(amount));
}

impl Metrics {
    pub(super) fn accepted(&self) {
        add(&self.accepted, 1);
    }

    pub(super) fn lane(&self) {
        add(&self.lanes, 1);
    }

    pub(super) fn refused(&self, why: Refusal) {
        *self.refused.borrow_mut().entry(why).or_default() += 1;
    }

    pub(super) fn ended(&self, outcome: Outcome) {
        *self.sessions_ended.borrow_mut().entry(outcome).or_default() += 1;
    }

    pub(super) fn reloaded(&self, well: bool) {
        add(if well { &self.reloads } else { &self.reloads_failed }, 1);
    }

    /// A session has moved from `before` to `now`; totals never go back, whatever a worker says.
    pub(super) fn moved(&self, before: &Moved, now: &Moved) {
        add(&self.in_bytes, now.in_bytes.saturating_sub(before.in_bytes));
        add(&self.out_bytes, now.out_bytes.saturating_sub(before.out_bytes));
        add(&self.files, now.files.saturating_sub(before.files));
        add(&self.deleted, now.deleted.saturating_sub(before.deleted));
        add(&self.problems, now.problems.saturating_sub(before.problems));
    }

    /// The page.
    pub(super) fn page(&self, gauges: Gauges) -> String {
        let mut page = String::new();
        let mut family = |name: &str, kind: &str, help: &str, samples: &[(String, u64)]| {
            let _ = writeln!(page, "# HELP xfer_{name} {help}\n# TYPE xfer_{name} {kind}");
            for (labels, value) in samples {
                let _ = writeln!(page, "xfer_{name}{labels} {value}");
            }
        };
        let plain = |value: u64| [(String::new(), value)];
        let version = format!("{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"));
        family("build_info", "gauge", "Version of this program.", &[(version, 1)]);
        family("serve_draining", "gauge", "1 once no new sessions are taken.", &plain(gauges.draining.into()));
        family("serve_sessions", "gauge", "Sessions that run.", &plain(gauges.sessions as u64));
        let waiting = gauges.unauthenticated as u64;
        family("serve_unauthenticated", "gauge", "Connections that have not said who they are.", &plain(waiting));
        let ended = self.sessions_ended.borrow();
        let outcomes = Outcome::ALL
            .map(|outcome| (format!("{{outcome=\"{}\"}}", outcome.label()), ended.get(&outcome).copied().unwrap_or(0)));
        family("serve_sessions_ended_total", "counter", "Sessions that ended, by how.", &outcomes);
        family("serve_connections_total", "counter", "Connections accepted.", &plain(self.accepted.get()));
        family("serve_lanes_total", "counter", "Connections handed to running sessions.", &plain(self.lanes.get()));
        let refused = self.refused.borrow();
        let refusals = Refusal::ALL
            .map(|why| (format!("{{reason=\"{}\"}}", why.label()), refused.get(&why).copied().unwrap_or(0)));
        family("serve_refused_total", "counter", "Connections and sessions refused, by reason.", &refusals);
        let failures = refused.get(&Refusal::Authentication).copied().unwrap_or(0);
        family("serve_auth_failures_total", "counter", "Peers without a key that is known here.", &plain(failures));
        family("serve_received_bytes_total", "counter", "Bytes from clients.", &plain(self.in_bytes.get()));
        family("serve_sent_bytes_total", "counter", "Bytes to clients.", &plain(self.out_bytes.get()));
        family("serve_files_total", "counter", "Files whose content was transferred.", &plain(self.files.get()));
        family("serve_deleted_total", "counter", "Items deleted here.", &plain(self.deleted.get()));
        family("serve_problems_total", "counter", "Items that failed.", &plain(self.problems.get()));
        let reloads = [
            ("{result=\"ok\"}".to_owned(), self.reloads.get()),
            ("{result=\"failed\"}".to_owned(), self.reloads_failed.get()),
        ];
        family("serve_reloads_total", "counter", "Times the configuration was read again.", &reloads);
        let lost = gauges.log_lines_dropped;
        family("serve_log_lines_dropped_total", "counter", "Log lines lost because the log was slow.", &plain(lost));
        page
    }
}

/// Answers requests for the page until it is dropped. `page` makes it.
pub(super) async fn serve_page(listener: TcpListener, page: Rc<dyn Fn() -> String>) {
    let room = Arc::new(tokio::sync::Semaphore::new(limits::METRICS_CONNECTIONS_MAX));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(_) => {
                tokio::time::sleep(Duration::from_millis(limits::STOP_POLL_MS)).await;
                continue;
            }
        };
        let page = Rc::clone(&page);
        tokio::task::spawn_local(async move {
            let _permit = permit;
            let answer = service_fn(|request: Request<Incoming>| {
                let response = respond(&request, &*page);
                async move { Ok::<_, Infallible>(response) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(Duration::from_millis(limits::METRICS_REQUEST_TIMEOUT_MS))
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), answer);
            let most = Duration::from_millis(2 * limits::METRICS_REQUEST_TIMEOUT_MS);
            let _ = tokio::time::timeout(most, connection).await;
        });
    }
}

fn respond(request: &Request<Incoming>, page: &dyn Fn() -> String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::new()));
    let text = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    if request.uri().path() != "/metrics" {
        *response.status_mut() = StatusCode::NOT_FOUND;
    } else if request.method() == Method::GET || request.method() == Method::HEAD {
        response.headers_mut().insert(CONTENT_TYPE, text);
        *response.body_mut() = Full::new(Bytes::from(page()));
    } else {
        *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_every_label_from_the_start() {
        let metrics = Metrics::default();
        metrics.refused(Refusal::Authentication);
        metrics.ended(Outcome::of("max-delete"));
        metrics.moved(&Moved::default(), &Moved { in_bytes: 5, ..Moved::default() });
        // A worker that takes back what it said changes nothing.
        metrics.moved(&Moved { in_bytes: 5, ..Moved::default() }, &Moved::default());
        let page = metrics.page(Gauges { sessions: 2, ..Gauges::default() });
        for line in [
            "xfer_serve_sessions 2",
            "xfer_serve_refused_total{reason=\"authentication\"} 1",
            "xfer_serve_refused_total{reason=\"key\"} 0",
            "xfer_serve_sessions_ended_total{outcome=\"partial\"} 1",
            "xfer_serve_sessions_ended_total{outcome=\"died\"} 0",
            "xfer_serve_received_bytes_total 5",
            "xfer_serve_auth_failures_total 1",
        ] {
            assert!(page.lines().any(|other| other == line), "{line} is not in\n{page}");
        }
        for line in page.lines().filter(|line| !line.starts_with('#')) {
            let (_, value) = line.rsplit_once(' ').unwrap();
            assert!(value.parse::<u64>().is_ok(), "{line}");
        }
    }

    #[test]
    fn what_a_worker_names_is_no_label() {
        assert_eq!(Outcome::of("complete\"} 1\nevil"), Outcome::Failed);
    }
}

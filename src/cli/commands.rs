//! The commands: what each of them does with its arguments.

use std::sync::Arc;

use clap::ArgMatches;

use super::args::{self, Scope};
use super::console::Console;
use super::convert::{self, Prepared};
use super::exit::{Code, Failure};
use super::face::{Clock, Ending, Face};
use super::inputs::System;
use super::render::{self, JsonEvent};
use super::signals;
use crate::monitor::Monitor;
use crate::net::Address;
use crate::sync::{self, StopFlag};

/// `xfer sync`.
pub(crate) fn sync(matches: &ArgMatches) -> Result<Code, Failure> {
    let invocation = args::invocation(matches, Scope::Sync)?;
    let prepared = convert::sync_request(invocation, &mut System::new())?;
    let Prepared { request, settings, .. } = &prepared;
    if let ([address @ Address::Daemon { module, .. }], None) = (&request.sources[..], &request.destination)
        && module.is_empty()
    {
        let modules = sync::list_modules(address, &request.connect, &StopFlag::default());
        return super::print(
            render::modules(&modules.map_err(|error| Failure::from(&error))?, settings.json).as_bytes(),
        );
    }
    let face = face(&prepared)?;
    let stop = StopFlag::default();
    listen(&stop, &face)?;
    face.begin("sync", &prepared.sources, prepared.destination.as_ref());
    let result = {
        let _clock = Clock::start(&face, &stop);
        sync::run(request, Arc::clone(&face) as Arc<dyn Monitor>, &stop)
    };
    let report = match result {
        Ok(report) => report,
        Err(error) => return Ok(give_up(&face, &Failure::from(&error))),
    };
    let mut code = Code::from(report.outcome);
    face.console().flush();
    if code == Code::Interrupted && face.console().out_closed() && (settings.list_only || settings.dry_run) {
        // The reader of the list went away, which is no failure.
        code = Code::Complete;
    }
    let (elapsed_ms, listing_ms) = (report.elapsed_ms, report.listing_ms);
    face.end(&Ending { stats: &report.stats, code, elapsed_ms, listing_ms });
    if face.is_json() {
        face.json_line(&JsonEvent::summary(code, face.problem_count(), elapsed_ms, Some(&report.stats)));
    }
    Ok(closed(&face, code))
}

/// `xfer verify`.
pub(crate) fn verify(matches: &ArgMatches) -> Result<Code, Failure> {
    let invocation = args::invocation(matches, Scope::Verify)?;
    let prepared = convert::verify_request(invocation, &mut System::new())?;
    let face = face(&prepared)?;
    let stop = StopFlag::default();
    listen(&stop, &face)?;
    face.begin("verify", &prepared.sources, prepared.destination.as_ref());
    let started = std::time::Instant::now();
    let result = {
        let _clock = Clock::start(&face, &stop);
        sync::verify(&prepared.request, Arc::clone(&face) as Arc<dyn Monitor>, &stop)
    };
    let report = match result {
        Ok(report) => report,
        Err(error) => return Ok(give_up(&face, &Failure::from(&error))),
    };
    let mut code = Code::from(report.outcome);
    if report.equal == Some(false) && code == Code::Complete {
        // Trees that are not proven equal never end with 0.
        code = Code::Partial;
    }
    let elapsed_ms = started.elapsed().as_millis() as u64;
    face.end(&Ending { stats: &report.stats, code, elapsed_ms, listing_ms: 0 });
    if face.is_json() {
        let mut summary = JsonEvent::summary(code, face.problem_count(), elapsed_ms, Some(&report.stats));
        if let JsonEvent::Summary { equal, tree_digest, .. } = &mut summary {
            *equal = report.equal;
            *tree_digest = report.tree_digest.map(|digest| digest.to_string());
        }
        face.json_line(&summary);
    } else {
        if report.equal == Some(true) && code == Code::Complete && !face.is_quiet() {
            let listed = &report.stats.listed;
            face.console().out_line(&format!(
                "equal: {} entries, {} files, {} bytes",
                listed.total(),
                listed.files,
                report.stats.total_bytes
            ));
        }
        if let Some(digest) = report.tree_digest {
            // The result itself, shown with -q too.
            face.console().out_line(&format!("{digest}  {}", prepared.sources.join(" ")));
        }
    }
    Ok(closed(&face, code))
}

fn face<R>(prepared: &Prepared<R>) -> Result<Arc<Face>, Failure> {
    Ok(Arc::new(Face::new(&prepared.settings, prepared.receiving, Console::standard())?))
}

fn listen(stop: &StopFlag, face: &Arc<Face>) -> Result<(), Failure> {
    let told = Arc::clone(face);
    signals::listen(stop, move || told.console().err_line("xfer: stopping; a second signal ends at once"))
        .map_err(|error| Failure::failed(format!("cannot listen to signals: {error}")))
}

/// The last writes. Output that was lost turns success into failure: somebody counts on it.
fn closed(face: &Face, code: Code) -> Code {
    match face.console().finish() {
        Some(error) => {
            face.console().err_line(&format!("xfer: cannot write to standard output: {error}"));
            if code == Code::Complete { Code::Failed } else { code }
        }
        None => code,
    }
}

fn give_up(face: &Face, failure: &Failure) -> Code {
    face.fail(failure);
    failure.code
}

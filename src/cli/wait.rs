//! `signdrop wait`: the barrier.

use std::{io, path::PathBuf};

use super::{
    Error, Print,
    client::{Address, Error as ClientError},
    connect, each_path,
    terminal::{clean, progress, say, say_json},
};
use crate::http::{WaitAnswer, WaitRequest, WaitState};

pub(super) fn wait(
    api: &Address,
    timeout: Option<u64>,
    print: Print,
    paths: &[PathBuf],
) -> Result<(), Error> {
    let absolute = each_path(paths, |path| std::path::absolute(path))?;
    let end = match request(api, timeout, absolute.clone()) {
        // A link on the way may hide that the path is in a drop directory.
        Err(Error::Client(ClientError::Refused(problem))) if problem.status == 404 => {
            let real = each_path(paths, |path| path.canonicalize())?;
            if real == absolute {
                return Err(ClientError::Refused(problem).into());
            }
            request(api, timeout, real)?
        }
        end => end?,
    };
    for failed in &end.failed {
        eprintln!(
            "signdrop: {}: {}",
            clean(failed.path.as_str().into()),
            clean(failed.reason.as_str().into())
        );
    }
    if print == Print::Json {
        say_json(&end)?;
    }
    if end.state != WaitState::Settled {
        return Err(Error::TimedOut {
            settled: end.settled,
            found: end.found,
        });
    }
    if !end.failed.is_empty() {
        return Err(Error::Some {
            failed: end.failed.len(),
            all: usize::try_from(end.found).unwrap_or(usize::MAX),
        });
    }
    if print == Print::Text {
        say(&format!("{} settled", end.settled))?;
    }
    Ok(())
}

fn request(api: &Address, timeout: Option<u64>, paths: Vec<PathBuf>) -> Result<WaitAnswer, Error> {
    if let Some(path) = paths.iter().find(|path| path.to_str().is_none()) {
        return Err(Error::Usage(format!(
            "{} is not UTF-8, which the API cannot carry; wait for the directory above",
            path.display()
        )));
    }
    let client = connect(api)?;
    let bar = progress(0, "waiting");
    let mut end = None;
    let result = client.post_lines(
        "/v1/wait",
        &WaitRequest { paths, timeout },
        |answer: WaitAnswer| {
            bar.set_length(answer.found);
            bar.set_position(answer.settled);
            end = Some(answer);
        },
    );
    bar.finish_and_clear();
    let stopped = || ClientError::Unreachable {
        address: api.to_string(),
        source: io::Error::other("it stopped before the wait was over"),
    };
    match result {
        Err(ClientError::Refused(problem)) if problem.status == 503 => Err(stopped().into()),
        Err(error) => Err(error.into()),
        Ok(()) => Ok(end
            .filter(|end| end.state != WaitState::Waiting)
            .ok_or_else(stopped)?),
    }
}

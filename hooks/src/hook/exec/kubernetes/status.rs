//! What the API server's answers mean for a command.
//!
//! One place decides what is worth another try, and takes the exit code out of the status that ends a connection.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kube::{Error, client::UpgradeConnectionError};

use super::{ExecError, Exit};

/// What an answer to a request, or the lack of one, means.
pub(super) fn request_error(error: &Error) -> ExecError {
    match error {
        Error::Api(status) if later(status.code) => ExecError::Unreachable(answer(status.code, &status.message)),
        Error::Api(status) if status.code == 404 => ExecError::Gone(status.message.clone()),
        Error::Api(status) => ExecError::Refused(answer(status.code, &status.message)),
        Error::UpgradeConnection(UpgradeConnectionError::ProtocolSwitch(code)) => match code.as_u16() {
            404 => ExecError::Gone("the API server knows no such pod any more".to_owned()),
            code if later(code) => ExecError::Unreachable(answer(code, "")),
            code => ExecError::Refused(answer(code, "")),
        },
        Error::BuildRequest(_) | Error::SerdeError(_) => ExecError::Refused(chain(error)),
        error => ExecError::Unreachable(format!("the API server does not answer: {}", chain(error))),
    }
}

/// Whether an answer says that another one may come later.
fn later(code: u16) -> bool {
    matches!(code, 408 | 429 | 500..=599)
}

fn answer(code: u16, message: &str) -> String {
    match message {
        "" => format!("the API server answered {code}"),
        message => format!("the API server answered {code}: {message}"),
    }
}

/// The causes of `error` that add something.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        cause = error.source();
    }
    text
}

/// What the status says that ends a connection; without one the connection broke.
pub(super) fn exit(status: Option<Status>) -> Result<Exit, ExecError> {
    let status = status.ok_or_else(|| ExecError::Lost("the API server, or the node, closed it".to_owned()))?;
    if status.status.as_deref() == Some("Success") {
        return Ok(Exit::Code(0));
    }
    let message = status.message.unwrap_or_default();
    let causes = status.details.and_then(|details| details.causes).unwrap_or_default();
    let code = causes.iter().find(|cause| cause.reason.as_deref() == Some("ExitCode"));
    match code.and_then(|cause| cause.message.as_deref()?.parse().ok()) {
        Some(code) => Ok(Exit::Code(code)),
        None => Err(ExecError::CannotStart(message)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(value: serde_json::Value) -> Result<Exit, ExecError> {
        exit(Some(serde_json::from_value(value).unwrap()))
    }

    #[test]
    fn an_exit_code_is_read_from_the_status() {
        assert_eq!(read(json!({"status": "Success"})), Ok(Exit::Code(0)));
        let failure = json!({
            "status": "Failure", "reason": "NonZeroExitCode",
            "message": "command terminated with non-zero exit code: exit status 7",
            "details": {"causes": [{"reason": "ExitCode", "message": "7"}]},
        });
        assert_eq!(read(failure), Ok(Exit::Code(7)));
    }

    #[test]
    fn a_status_without_an_exit_code_is_a_program_that_did_not_start() {
        let failure = json!({"status": "Failure", "reason": "InternalError", "message": "no such file"});
        assert_eq!(read(failure), Err(ExecError::CannotStart("no such file".to_owned())));
    }

    #[test]
    fn no_status_is_a_lost_connection() {
        assert!(matches!(exit(None), Err(ExecError::Lost(_))));
    }
}

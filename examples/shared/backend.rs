//! `--backend auto|cpu|gpu` of every example [auto: a GPU that passes its self-test, else the processor].
//! `WGPU_ADAPTER_NAME=llvmpipe` names a GPU, software ones too.

use cipherlens::backend::BackendError;
use cipherlens::backend::choice::{Choice, Devices, Opened};
use cipherlens::ckks::Params;
use std::error::Error;

/// What a user reads where `main` ends with an error.
fn text(error: BackendError) -> String {
    error.to_string()
}

/// What the command line asks for.
pub(crate) fn devices() -> Result<Devices, Box<dyn Error>> {
    let mut choice = Choice::Auto;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--backend" => choice = arguments.next().ok_or("--backend needs a value")?.parse().map_err(text)?,
            other => return Err(format!("unknown argument `{other}`: there is only --backend auto|cpu|gpu").into()),
        }
    }
    Ok(Devices::from(choice))
}

/// Opens what the command line asks for.
#[allow(dead_code, reason = "not every example opens a backend by itself")]
pub(crate) fn from_arguments(params: &Params) -> Result<Opened, Box<dyn Error>> {
    let opened = devices()?.open(params.tables().clone()).map_err(text)?;
    println!("{} computes; preset {} with N = 2^{}", opened.backend.name(), params.name(), params.log_n());
    Ok(opened)
}

//! Whether a file is whole, without keeping it.

use super::container::{Opened, Reader};
use super::objects::{self, CiphertextBody, KeyBody, Metadata, Origin};
use super::{Kind, WireError};
use crate::ckks::{CkksError, Params};
use crate::math::Basis;
use std::io::Read;
use std::path::Path;

/// A file that is whole.
#[derive(Debug, Clone, PartialEq)]
pub struct Verified {
    /// What it is.
    pub kind: Kind,
    /// Where it comes from; none for a parameter set.
    pub origin: Option<Origin>,
    /// Bytes of it.
    pub bytes: u64,
}

/// Reads a file from its first byte to its last, and checks all that reading it for use would: the header, every hash, what the parameter
/// set allows, every residue, and that nothing follows. Takes a few MiB whatever its size.
///
/// `params` is the set that it belongs to; a file that holds one needs none, and for one that was made for another it is an error. A
/// compiled network is checked by reading it (`nn::Compiled::read` of cipherlens), and is an error here.
///
/// # Errors
/// [`WireError::Shape`] where `params` is needed and not given, and for a compiled network or a client's description;
/// else as the function of [`objects`] that reads the kind: what is damaged is told before what may not be.
pub fn verify(path: &Path, params: Option<&Params>) -> Result<Verified, WireError> {
    verified(Opened::path(path)?, params)
}

/// As [`verify`].
///
/// # Errors
/// As [`verify`].
pub fn verify_from(input: impl Read, params: Option<&Params>) -> Result<Verified, WireError> {
    verified(Opened::input(input)?, params)
}

fn verified<R: Read>(opened: Opened<R>, params: Option<&Params>) -> Result<Verified, WireError> {
    let kind = opened.kind();
    let params = || {
        params.ok_or_else(|| WireError::Shape {
            what: "parameter set",
            expected: format!("the one that the {kind} was made for"),
            found: "none".into(),
        })
    };
    match kind {
        Kind::Params => {
            let reader = opened.header(kind)?;
            let bytes = reader.bytes();
            objects::params_of(reader)?;
            Ok(Verified { kind, origin: None, bytes })
        }
        Kind::SecretKey => {
            let params = params()?;
            let (mut reader, origin) = begin::<(), R>(opened, kind, params, "secret key")?;
            reader.check_sizes([params.degree()])?;
            let mut bad = None;
            reader.scan(|_, first, words| {
                let at = words.iter().position(|&w| !(-1..=1).contains(&(w as i32)));
                bad = bad.or(at.map(|at| first + at));
                Ok(())
            })?;
            bad.map_or(Ok(()), |index| Err(WireError::SecretWord { index }))?;
            end(reader, origin, kind)
        }
        Kind::PublicKey => {
            let params = params()?;
            let (mut reader, origin) = begin::<[u8; 32], R>(opened, kind, params, "public key")?;
            let basis = Basis::range(0..params.tables().len() - params.special().len());
            residues(&mut reader, params, "public key", &[(1, basis)])?;
            end(reader, origin, kind)
        }
        Kind::EvaluationKeys => {
            let params = params()?;
            let (mut reader, origin) = begin::<Vec<KeyBody>, R>(opened, kind, params, "evaluation keys")?;
            objects::check_keys(params, &reader.metadata.body)?;
            let parts = reader.metadata.body.iter().map(|key| {
                let gadget = &key.request.gadget;
                Ok((gadget.digits(), params.key_basis(gadget).map_err(CkksError::from)?))
            });
            let parts = parts.collect::<Result<Vec<_>, WireError>>()?;
            residues(&mut reader, params, "key switching key", &parts)?;
            end(reader, origin, kind)
        }
        Kind::Ciphertext => {
            let params = params()?;
            let (mut reader, origin) = begin::<CiphertextBody, R>(opened, kind, params, "ciphertext")?;
            let (polys, basis) = objects::polys(params, &reader.metadata.body)?;
            objects::check_scale(params, &reader.metadata.body)?;
            residues(&mut reader, params, "ciphertext", &[(polys, basis.clone())])?;
            end(reader, origin, kind)
        }
        Kind::CompiledNetwork | Kind::ClientSpec => {
            Err(WireError::Shape { what: "file", expected: "parameters, keys or a ciphertext".into(), found: kind.to_string() })
        }
    }
}

type Begun<T, R> = (Reader<Metadata<T>, R>, Origin);

fn begin<T: serde::de::DeserializeOwned, R: Read>(
    opened: Opened<R>,
    kind: Kind,
    params: &Params,
    what: &'static str,
) -> Result<Begun<T, R>, WireError> {
    let reader = opened.header::<Metadata<T>>(kind)?;
    reader.metadata.origin.tag(params, what)?;
    let origin = reader.metadata.origin.clone();
    Ok((reader, origin))
}

fn end<M, R: Read>(reader: Reader<M, R>, origin: Origin, kind: Kind) -> Result<Verified, WireError> {
    let bytes = reader.bytes();
    reader.finish()?;
    Ok(Verified { kind, origin: Some(origin), bytes })
}

/// Errors unless the chunks are those of parts one after the other, each so many polynomials over a basis, and every residue is below its
/// modulus: the error is that of reading it for use.
fn residues<M, R: Read>(
    reader: &mut Reader<M, R>,
    params: &Params,
    what: &'static str,
    parts: &[(usize, Basis)],
) -> Result<(), WireError> {
    let degree = params.degree();
    reader.check_sizes(parts.iter().flat_map(|(polys, basis)| objects::chunk_sizes(polys * basis.len(), degree)))?;
    // Of each limb, where in its part it begins, and its prime.
    let mut limbs = parts.iter().flat_map(|(polys, basis)| {
        let limbs = (0..*polys).flat_map(|_| basis.limbs().iter().copied());
        limbs.enumerate().map(|(i, limb)| (i * degree, limb))
    });
    let (mut begin, mut modulus, mut left) = (0, 0, 0);
    let mut first = None;
    reader.scan(|_, _, words| {
        let mut at = 0;
        while at < words.len() {
            if left == 0 {
                (begin, modulus) = limbs.next().map_or((0, 0), |(at, limb)| (at, params.tables().modulus(limb).value()));
                left = degree;
            }
            let some = &words[at..][..left.min(words.len() - at)];
            if first.is_none() {
                let bad = some.iter().position(|&w| w >= modulus);
                first = bad.map(|bad| CkksError::Residue { what, index: begin + degree - left + bad, found: some[bad], modulus });
            }
            (at, left) = (at + some.len(), left - some.len());
        }
        Ok(())
    })?;
    first.map_or(Ok(()), |bad| Err(bad.into()))
}

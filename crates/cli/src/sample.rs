//! What a network is given: a picture, or numbers that are none.

use super::failure::{Class, Failure, Outcome};
use super::npy::{self, Array, Numbers};
use super::picture::Picture;
use cipherlens::nn::model::{Fit, Input};
use cipherlens::nn::tensor::Tensor;
use std::path::Path;

/// One input of a network, before it has the network's shape.
#[derive(Debug, Clone)]
pub enum Sample {
    /// Pixels, to be fitted and normalised.
    Picture(Picture),
    /// Numbers of the network's shape.
    Numbers(Numbers),
}

impl Sample {
    /// All inputs in a file, a picture or a `.npy` array, and what to call each.
    ///
    /// # Errors
    /// [`Class::BadInput`] for a file that is neither ([`Picture::open`], [`Array::open`]), or numbers that are not finite.
    pub fn open_all(path: &Path) -> Outcome<Vec<(Self, String)>> {
        if !npy::is_named_so(path) {
            return Ok(vec![(Self::Picture(Picture::open(path)?), path.display().to_string())]);
        }
        let array = Array::open(path)?;
        (0..array.count).map(|i| Ok((Self::Numbers(array.read(i)?), array.name(i)))).collect()
    }

    /// The one input in a file.
    ///
    /// # Errors
    /// [`Class::Usage`] for an array of several inputs; those of [`Self::open_all`].
    pub fn open(path: &Path) -> Outcome<(Self, String)> {
        if npy::is_named_so(path) {
            let count = Array::open(path)?.count;
            if count != 1 {
                let what = format!("{} holds {count} inputs", path.display());
                return Err(Failure::new(
                    Class::Usage,
                    what,
                    "one is wanted here",
                    "save one of them: numpy.save(file, array[0])",
                ));
            }
        }
        Self::open_all(path).map(|mut all| all.remove(0))
    }

    /// As a network's input, and what was changed on the way: of pictures and bytes `(v - mean) / std` per channel, of other numbers
    /// they themselves. Pictures are fitted as asked, else as the network says.
    ///
    /// # Errors
    /// [`Class::BadInput`] for a network that takes no pictures ([`Picture::fit`]), or an array of another shape than it takes.
    pub fn input(&self, input: &Input, fit: Option<Fit>) -> Outcome<(Tensor<f64>, Vec<String>)> {
        let shape = input.shape;
        let unfit = |e: &(dyn std::error::Error + 'static)| super::failure::explain("the input does not fit the network", e);
        match self {
            Self::Picture(picture) => {
                let fitted = picture.fit(shape.channels, shape.height, shape.width, fit.unwrap_or(input.fit))?;
                let tensor = input.normalise(&fitted.planes).map_err(|e| unfit(&e))?;
                let mut notes = fitted.notes;
                if let Some(note) = fit.filter(|fit| *fit != input.fit).and_then(overridden) {
                    notes.push(note.into());
                }
                Ok((tensor, notes))
            }
            Self::Numbers(numbers) => {
                let wanted = [shape.channels, shape.height, shape.width];
                if numbers.shape != wanted {
                    let what = "the array does not fit the network";
                    let why = format!(
                        "it has inputs of {:?}, and the network takes {wanted:?} (channels, rows, columns)",
                        numbers.shape
                    );
                    let [h, w, c] = numbers.shape;
                    let advice = if [c, h, w] == wanted {
                        "its channels come last: save numpy.moveaxis(array, -1, -3)"
                    } else {
                        "save an array of the network's shape"
                    };
                    return Err(Failure::new(Class::BadInput, what, why, advice));
                }
                if numbers.pixels {
                    let tensor = input.normalise(&numbers.values).map_err(|e| unfit(&e))?;
                    return Ok((tensor, vec!["uint8: pixels of 0 to 255, normalised like those of a picture".into()]));
                }
                let tensor = Tensor::new(shape, numbers.values.to_vec()).map_err(|e| unfit(&e))?;
                Ok((tensor, vec!["numbers fed as they are, without mean and std".into()]))
            }
        }
    }
}

/// What is said where a picture is fitted otherwise than the network says.
fn overridden(asked: Fit) -> Option<&'static str> {
    Some(match asked {
        Fit::Crop => "cropped as asked, though the network was compiled with stretched pictures",
        Fit::Stretch => "stretched as asked, though the network was compiled with cropped pictures",
    })
}

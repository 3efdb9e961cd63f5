//! A network small enough to run encrypted in a blink: 3 x 8 x 8, one convolution, squares, the mean, three classes.

use safetensors::tensor::{Dtype, TensorView, serialize};
use std::collections::HashMap;
use std::path::Path;

/// The parts of the model file, to be changed before it is written.
pub(crate) struct TinyModel {
    pub format: String,
    pub graph: String,
    pub conv_weight: Vec<f32>,
    pub fc_weight: Vec<f32>,
}

impl Default for TinyModel {
    fn default() -> Self {
        Self::with_activations(1)
    }
}

impl TinyModel {
    /// The usual network with a chain of so many squaring activations. Class c of red, green, blue has the squared mean of
    /// that colour as its logit.
    pub(crate) fn with_activations(count: usize) -> Self {
        // A 2x2 mean of each colour.
        let conv_weight = (0..3).flat_map(|o| (0..3).flat_map(move |i| [if o == i { 0.25 } else { 0.0 }; 4])).collect();
        let fc_weight = (0..9).map(|i| if i % 4 == 0 { 2.0 } else { 0.125 }).collect();
        let name = |i: usize| if i + 1 == count { "act".to_string() } else { format!("act_{i}") };
        let activations: String = (0..count)
            .map(|i| {
                let input = if i == 0 { "conv".to_string() } else { name(i - 1) };
                format!(
                    r#"{{"op":"polynomial","name":"{0}","inputs":["{input}"],"output":"{0}","coefficients":"act.coefficients"}},"#,
                    name(i)
                )
            })
            .collect();
        let graph = format!(
            r#"{{"name":"tiny","input":{{"name":"image","channels":3,"height":8,"width":8,"mean":[0,0,0],"std":[1,1,1]}},
            "classes":["red","green","blue"],"nodes":[
            {{"op":"conv2d","name":"conv","inputs":["image"],"output":"conv","weight":"conv.weight","bias":"conv.bias",
              "stride":[2,2],"padding":[0,0,0,0],"dilation":[1,1],"groups":1}},{activations}
            {{"op":"global_avg_pool","name":"pool","inputs":["act"],"output":"pool"}},
            {{"op":"flatten","name":"flatten","inputs":["pool"],"output":"flatten"}},
            {{"op":"linear","name":"fc","inputs":["flatten"],"output":"logits","weight":"fc.weight","bias":"fc.bias"}}],
            "output":"logits"}}"#
        );
        let graph = graph.split('\n').map(str::trim).collect();
        Self { format: "cipherlens-model".into(), graph, conv_weight, fc_weight }
    }

    /// Writes `tiny.safetensors`; its path.
    pub(crate) fn save(&self, dir: &Path) -> String {
        self.save_as(dir, "tiny.safetensors")
    }

    /// Writes it under a name; its path.
    pub(crate) fn save_as(&self, dir: &Path, name: &str) -> String {
        let bytes = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
        let tensors = [
            ("conv.weight", vec![3, 3, 2, 2], bytes(&self.conv_weight)),
            ("conv.bias", vec![3], bytes(&[0.0; 3])),
            ("act.coefficients", vec![3], bytes(&[0.0, 0.25, 0.75])),
            ("fc.weight", vec![3, 3], bytes(&self.fc_weight)),
            ("fc.bias", vec![3], bytes(&[0.0; 3])),
        ];
        let views = tensors.iter().map(|(name, shape, bytes)| {
            (name.to_string(), TensorView::new(Dtype::F32, shape.clone(), bytes).expect("shape and bytes agree"))
        });
        let metadata = [("format", self.format.as_str()), ("version", "1"), ("graph", &self.graph)];
        let metadata: HashMap<String, String> = metadata.map(|(k, v)| (k.to_string(), v.to_string())).into();
        let path = dir.join(name);
        std::fs::write(&path, serialize(views, Some(metadata)).expect("it serializes")).expect("a file can be written");
        path.to_string_lossy().into_owned()
    }
}

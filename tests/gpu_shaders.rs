//! The kernels' table against the shaders themselves: every shader is valid in both forms of the wide product, translates
//! to the languages of Metal and DX12, and declares what its row says. No GPU is needed.
#![cfg(feature = "gpu")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use cipherlens::backend::gpu::arguments::STRUCTS;
use cipherlens::backend::gpu::registry::{
    Access, Kernel, MANY_STORAGE_BUFFERS, SHADERS, SIZES, STORAGE_BUFFERS, Shader, WORKGROUP_BYTES, Wide,
};
use naga::valid::{Capabilities, GlobalUse, ModuleInfo, ValidationFlags, Validator};
use naga::{AddressSpace, Module};
use std::path::Path;

fn validated(shader: &Shader, wide: Wide) -> (Module, ModuleInfo) {
    let source = shader.source(wide);
    let module = naga::front::wgsl::parse_str(&source).unwrap_or_else(|e| panic!("{}", e.emit_to_string(&source)));
    let capabilities = match wide {
        Wide::U64 => Capabilities::SHADER_INT64,
        Wide::U32 => Capabilities::empty(),
    };
    let info = Validator::new(ValidationFlags::all(), capabilities)
        .validate(&module)
        .unwrap_or_else(|e| panic!("{} {wide:?}: {}", shader.name, e.emit_to_string(&source)));
    (module, info)
}

#[test]
fn rows_say_what_shaders_declare() {
    for wide in Wide::ALL {
        for kernel in Kernel::ALL {
            let row = kernel.row();
            let (module, info) = validated(&row.shader, wide);
            let at = module.entry_points.iter().position(|e| e.name == row.name).expect(row.name);
            let entry = &module.entry_points[at];
            assert_eq!(entry.workgroup_size, [row.workgroup, 1, 1], "{}", row.name);
            let uses = info.get_entry_point(at);
            let mut bindings = Vec::new();
            let mut shared = 0;
            for (handle, global) in module.global_variables.iter().filter(|(handle, _)| !uses[*handle].is_empty()) {
                match global.space {
                    AddressSpace::Storage { .. } => {
                        let binding = global.binding.unwrap();
                        assert_eq!(binding.group, 0);
                        let write = uses[handle].contains(GlobalUse::WRITE);
                        bindings.push((binding.binding, if write { Access::Write } else { Access::Read }));
                    }
                    AddressSpace::WorkGroup => shared += module.types[global.ty].inner.size(module.to_ctx()),
                    _ => {}
                }
            }
            bindings.sort_by_key(|b| b.0);
            assert_eq!(bindings, row.bindings, "{}", row.name);
            let many = [Kernel::KeyInnerProducts, Kernel::RotatedInnerProduct, Kernel::LinearCombinations, Kernel::TensorSums];
            let most = if many.contains(kernel) { MANY_STORAGE_BUFFERS } else { STORAGE_BUFFERS };
            assert!(kernel.storage_buffers() <= most && shared <= WORKGROUP_BYTES, "{}: {shared} bytes", row.name);
        }
    }
}

#[test]
fn arguments_are_the_same_structs_on_both_sides() {
    let mut found = Vec::new();
    for shader in SHADERS {
        let (module, _) = validated(shader, Wide::U32);
        let size = |ty: naga::Handle<naga::Type>| module.types[ty].inner.size(module.to_ctx());
        for (name, fields) in STRUCTS {
            let Some((_, ty)) = module.types.iter().find(|(_, ty)| ty.name.as_deref() == Some(*name)) else { continue };
            let naga::TypeInner::Struct { members, .. } = &ty.inner else { panic!("{name} is no struct") };
            let named: Vec<_> = members.iter().map(|m| m.name.as_deref().unwrap()).collect();
            assert_eq!(&named[..fields.len()], *fields, "{} {name}", shader.name);
            for (i, member) in members[..fields.len()].iter().enumerate() {
                assert_eq!((member.offset, size(member.ty)), (4 * i as u32, 4), "{} {name}.{}", shader.name, fields[i]);
            }
            // Of a call, the rows follow without a gap, and one has the size of the host's.
            if let Some(rows) = members.get(fields.len()) {
                assert_eq!((members.len(), rows.offset), (fields.len() + 1, 4 * fields.len() as u32), "{name}");
                let naga::TypeInner::Array { base, stride, .. } = module.types[rows.ty].inner else {
                    panic!("{name}: rows are no array")
                };
                let host = module.types[base].name.as_ref().and_then(|row| STRUCTS.iter().find(|(name, _)| name == row));
                assert_eq!(stride, host.map_or(16, |(_, fields)| 4 * fields.len() as u32), "{name}: a row");
            }
            found.push(*name);
        }
        // Nothing is told in another way.
        let arguments = module.global_variables.iter().filter(|(_, g)| g.binding.as_ref().is_some_and(|b| b.binding == 0));
        for (_, global) in arguments {
            let name = module.types[global.ty].name.as_deref();
            assert!(STRUCTS.iter().any(|(known, _)| name == Some(*known)), "{}: {name:?}", shader.name);
        }
    }
    found.sort_unstable();
    let mut all: Vec<_> = STRUCTS.iter().map(|(name, _)| *name).collect();
    all.sort_unstable();
    assert_eq!(found, all, "each in one shader");
}

#[test]
fn sizes_are_the_same_on_both_sides() {
    for shader in SHADERS {
        let (module, _) = validated(shader, Wide::U32);
        for (_, constant) in module.constants.iter() {
            let naga::Expression::Literal(naga::Literal::U32(value)) = module.global_expressions[constant.init] else { continue };
            let Some(&(_, host)) = SIZES.iter().find(|(name, _)| constant.name.as_deref() == Some(*name)) else { continue };
            assert_eq!(value, host, "{} {:?}", shader.name, constant.name);
        }
    }
    let text: String = SHADERS.iter().map(|s| s.source(Wide::U32)).collect();
    assert!(SIZES.iter().all(|(name, _)| text.contains(&format!("const {name}: u32 ="))), "each is said by a shader");
}

#[test]
fn every_entry_point_has_a_row_and_a_twin() {
    for shader in SHADERS {
        let (module, _) = validated(shader, Wide::U32);
        for entry in &module.entry_points {
            let rows = Kernel::ALL.iter().filter(|k| k.row().name == entry.name && k.row().shader == *shader).count();
            assert_eq!(rows, 1, "{} {}", shader.name, entry.name);
        }
    }
    for kernel in Kernel::ALL {
        let (file, function) = kernel.row().twin.split_once(' ').unwrap();
        let twin = std::fs::read_to_string(format!("{}/crates/core/src/{file}", env!("CARGO_MANIFEST_DIR"))).unwrap();
        assert!(
            twin.contains(&format!("fn {function}(")) || twin.contains(&format!("fn {function}<")),
            "{file} has no {function}"
        );
    }
    let files = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("shaders")).unwrap();
    let mut names: Vec<_> = files
        .map(|f| f.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "wgsl"))
        .map(|p| p.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    let mut known: Vec<_> = SHADERS.iter().map(|s| s.name.to_owned()).collect();
    names.sort();
    known.sort();
    assert_eq!(names, known, "files in shaders/ and rows");
}

#[test]
fn wide_integers_need_the_capability() {
    let module = naga::front::wgsl::parse_str(&SHADERS[0].source(Wide::U64)).unwrap();
    assert!(Validator::new(ValidationFlags::all(), Capabilities::empty()).validate(&module).is_err());
}

#[test]
fn shaders_translate_to_hlsl_and_msl() {
    for wide in Wide::ALL {
        for shader in SHADERS {
            let (module, info) = validated(shader, wide);
            // As pipelines are made: with the shader's own numbers where none are given.
            let (module, info) =
                naga::back::pipeline_constants::process_overrides(&module, &info, None, &Default::default()).unwrap();
            let mut text = String::new();
            let options = naga::back::hlsl::Options {
                shader_model: naga::back::hlsl::ShaderModel::V6_0,
                ..naga::back::hlsl::Options::default()
            };
            let pipeline = naga::back::hlsl::PipelineOptions::default();
            naga::back::hlsl::Writer::new(&mut text, &options, &pipeline).write(&module, &info, None).unwrap();
            assert!(text.contains("numthreads(256, 1, 1)"));
            let options = naga::back::msl::Options {
                lang_version: (2, 4),
                fake_missing_bindings: true,
                ..naga::back::msl::Options::default()
            };
            let pipeline = naga::back::msl::PipelineOptions::default();
            let (text, _) = naga::back::msl::write_string(&module, &info, &options, &pipeline).unwrap();
            assert_eq!(text.matches("kernel void").count(), module.entry_points.len());
        }
    }
}

//! The kernels, each on both backends.

use super::*;

impl Kernels for Mirror {
    fn name(&self) -> &'static str {
        self.reference.name()
    }
    fn tables(&self) -> &Arc<RnsTables> {
        self.reference.tables()
    }
    fn place(&self) -> Place {
        self.suspect.place()
    }
    fn memory_limit(&self) -> Option<u64> {
        self.suspect.memory_limit()
    }
    fn device_bytes(&self) -> Option<u64> {
        self.suspect.device_bytes()
    }
    fn statistics(&self) -> Statistics {
        self.suspect.statistics()
    }
    fn alloc(&self, shape: Shape) -> Result<Buffer> {
        self.made("alloc", |b| b.alloc(shape), |b, _| b.alloc(shape))
    }
    fn alloc_key(&self, shape: Shape) -> Result<Buffer> {
        self.made("alloc_key", |b| b.alloc_key(shape), |b, _| b.alloc_key(shape))
    }
    fn upload(&self, shape: Shape, words: &[u32]) -> Result<Buffer> {
        self.made("upload", |b| b.upload(shape, words), |b, _| b.upload(shape, words))
    }
    fn download(&self, buffer: &Buffer) -> Result<Vec<u32>> {
        self.reference.download(buffer)
    }
    fn synchronize(&self) -> Result<()> {
        self.reference.synchronize()?;
        self.suspect.synchronize()
    }
    fn duplicate(&self, buffer: &Buffer) -> Result<Buffer> {
        self.made("duplicate", |b| b.duplicate(buffer), |b, c| b.duplicate(&c.of(buffer)?))
    }
    fn select(&self, src: &Buffer, select: PolySelect) -> Result<Buffer> {
        self.made("select", |b| b.select(src, select), |b, c| b.select(&c.of(src)?, select))
    }
    fn concat(&self, parts: &[&Buffer]) -> Result<Buffer> {
        self.made("concat", |b| b.concat(parts), |b, c| b.concat(&c.all(parts.iter().copied())?.iter().collect::<Vec<_>>()))
    }
    fn ntt_forward(&self, data: &mut Buffer, basis: &Basis) -> Result<()> {
        self.changed("ntt_forward", data, |b, data, _| b.ntt_forward(data, basis))
    }
    fn ntt_inverse(&self, data: &mut Buffer, basis: &Basis) -> Result<()> {
        self.changed("ntt_inverse", data, |b, data, _| b.ntt_inverse(data, basis))
    }
    fn add(&self, x: &Buffer, y: &Buffer, basis: &Basis) -> Result<Buffer> {
        self.made("add", |b| b.add(x, y, basis), |b, c| b.add(&c.of(x)?, &c.of(y)?, basis))
    }
    fn add_assign(&self, x: &mut Buffer, y: &Buffer, basis: &Basis) -> Result<()> {
        self.changed("add_assign", x, |b, x, copy| b.add_assign(x, copy(y)?.as_ref().unwrap_or(y), basis))
    }
    fn sub(&self, x: &Buffer, y: &Buffer, basis: &Basis) -> Result<Buffer> {
        self.made("sub", |b| b.sub(x, y, basis), |b, c| b.sub(&c.of(x)?, &c.of(y)?, basis))
    }
    fn negate(&self, x: &Buffer, basis: &Basis) -> Result<Buffer> {
        self.made("negate", |b| b.negate(x, basis), |b, c| b.negate(&c.of(x)?, basis))
    }
    fn mul_constant(&self, x: &Buffer, constants: &[u32], basis: &Basis) -> Result<Buffer> {
        self.made("mul_constant", |b| b.mul_constant(x, constants, basis), |b, c| b.mul_constant(&c.of(x)?, constants, basis))
    }
    fn add_constant_assign(&self, x: &mut Buffer, select: PolySelect, constants: &[u32], basis: &Basis) -> Result<()> {
        self.changed("add_constant_assign", x, |b, x, _| b.add_constant_assign(x, select, constants, basis))
    }
    fn add_plain_assign(&self, x: &mut Buffer, select: PolySelect, plain: &Buffer, basis: &Basis) -> Result<()> {
        self.changed("add_plain_assign", x, |b, x, copy| {
            b.add_plain_assign(x, select, copy(plain)?.as_ref().unwrap_or(plain), basis)
        })
    }
    fn mul_plain(&self, x: &Buffer, plain: &Buffer, basis: &Basis) -> Result<Buffer> {
        self.made("mul_plain", |b| b.mul_plain(x, plain, basis), |b, c| b.mul_plain(&c.of(x)?, &c.of(plain)?, basis))
    }
    fn tensor(&self, x: &Buffer, y: &Buffer, basis: &Basis) -> Result<Buffer> {
        self.made("tensor", |b| b.tensor(x, y, basis), |b, c| b.tensor(&c.of(x)?, &c.of(y)?, basis))
    }
    fn plain_inner_product(&self, ct: &Buffer, plain: &Buffer, terms: &[Vec<PlainTerm>], basis: &Basis) -> Result<Buffer> {
        self.made(
            "plain_inner_product",
            |b| b.plain_inner_product(ct, plain, terms, basis),
            |b, c| b.plain_inner_product(&c.of(ct)?, &c.of(plain)?, terms, basis),
        )
    }
    fn automorphism(&self, src: &Buffer, galois: u32, basis: &Basis) -> Result<Buffer> {
        self.made("automorphism", |b| b.automorphism(src, galois, basis), |b, c| b.automorphism(&c.of(src)?, galois, basis))
    }
    fn base_convert(&self, src: &Buffer, conversion: &BaseConversion) -> Result<Buffer> {
        self.made("base_convert", |b| b.base_convert(src, conversion), |b, c| b.base_convert(&c.of(src)?, conversion))
    }
    fn mod_up(&self, src: &Buffer, select: PolySelect, plan: &KeySwitchTables) -> Result<Buffer> {
        self.made("mod_up", |b| b.mod_up(src, select, plan), |b, c| b.mod_up(&c.of(src)?, select, plan))
    }
    fn key_inner_product(&self, digits: &Buffer, key: &Buffer, plan: &KeySwitchTables) -> Result<Buffer> {
        self.made(
            "key_inner_product",
            |b| b.key_inner_product(digits, key, plan),
            |b, c| b.key_inner_product(&c.of(digits)?, &c.of(key)?, plan),
        )
    }
    fn change_basis(&self, src: &Buffer, change: &BasisChange) -> Result<Buffer> {
        self.made("change_basis", |b| b.change_basis(src, change), |b, c| b.change_basis(&c.of(src)?, change))
    }
}

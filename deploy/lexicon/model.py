"""The Qwen3-MoE forward pass in plain torch, small enough to read at a sitting.

Only what training needs: right-padded batches that all start at position 0, no KV cache, and the
vocabulary projection only at the positions whose loss counts. Parameters live in the layout that
trains fastest (experts stacked in one tensor); export.py writes them under their published names.
"""
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import nn


@dataclass
class Config:
    vocab_size: int = 2816
    hidden_size: int = 256
    num_hidden_layers: int = 4
    num_attention_heads: int = 16
    num_key_value_heads: int = 8
    head_dim: int = 32
    num_experts: int = 16
    num_experts_per_tok: int = 2
    moe_intermediate_size: int = 256
    intermediate_size: int = 768  # no layer is dense, so nothing uses it; the config must name it
    rms_norm_eps: float = 1e-6
    rope_theta: float = 1e6
    max_position_embeddings: int = 4096

    def as_dict(self):
        return asdict(self)


def rms_norm(x, weight, eps):
    return F.rms_norm(x, (x.shape[-1],), weight.to(x.dtype), eps)


def rope_table(length, config, device):
    half = config.head_dim // 2
    inv = config.rope_theta ** (-torch.arange(half, dtype=torch.float32, device=device) / half)
    angle = torch.arange(length, dtype=torch.float32, device=device)[:, None] * inv
    return angle.cos(), angle.sin()  # [T, half] each


def rotate(x, cos, sin):
    """x: [B, heads, T, head_dim]; the two halves of a head rotate against each other."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)


class Attention(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c = c
        q, kv = c.num_attention_heads * c.head_dim, c.num_key_value_heads * c.head_dim
        self.qkv_sizes = (q, kv, kv)
        self.qkv = nn.Parameter(torch.empty(q + 2 * kv, c.hidden_size))
        self.o = nn.Parameter(torch.empty(c.hidden_size, q))
        self.q_norm = nn.Parameter(torch.ones(c.head_dim))
        self.k_norm = nn.Parameter(torch.ones(c.head_dim))

    def forward(self, x, cos, sin, causal):
        c, (B, T, _) = self.c, x.shape
        q, k, v = F.linear(x, self.qkv).split(self.qkv_sizes, dim=-1)
        q, k, v = (t.view(B, T, -1, c.head_dim).transpose(1, 2) for t in (q, k, v))
        q = rotate(rms_norm(q, self.q_norm, c.rms_norm_eps), cos, sin).to(v.dtype)
        k = rotate(rms_norm(k, self.k_norm, c.rms_norm_eps), cos, sin).to(v.dtype)
        # Written out, because torch's fused attention has a very slow backward pass on CPUs at these
        # lengths. The query heads that share a key head are laid end to end: [B, kv, groups * T, d].
        groups = c.num_attention_heads // c.num_key_value_heads
        scores = q.reshape(B, -1, groups * T, c.head_dim) @ (k.mT * c.head_dim ** -0.5)
        p = (scores.view(B, -1, groups, T, T) + causal).softmax(-1).to(v.dtype)
        y = (p.view(B, -1, groups * T, T) @ v).view(B, -1, T, c.head_dim)
        return F.linear(y.transpose(1, 2).reshape(B, T, -1), self.o)


class Experts(nn.Module):
    """Router and experts. Rows are sorted by expert so that each expert is one dense product."""

    def __init__(self, c):
        super().__init__()
        self.c = c
        E, H, M = c.num_experts, c.hidden_size, c.moe_intermediate_size
        self.router = nn.Parameter(torch.empty(E, H))
        self.gate_up = nn.Parameter(torch.empty(E, 2 * M, H))
        self.down = nn.Parameter(torch.empty(E, H, M))

    def forward(self, x):
        """x: [N, H] -> ([N, H], load-balance loss)"""
        c, (N, H), K = self.c, x.shape, self.c.num_experts_per_tok
        with torch.autocast(x.device.type, enabled=False):
            probs = F.linear(x.float(), self.router).softmax(-1)
        weight, expert = probs.topk(K, dim=-1)
        weight = weight / weight.sum(-1, keepdim=True)
        expert_of_slot, order = expert.flatten().sort(stable=True)
        counts = torch.bincount(expert_of_slot, minlength=c.num_experts)
        # Switch-style balance: share of slots times mean probability, 1 when even.
        aux = c.num_experts * (counts / (N * K) * probs.mean(0)).sum()

        rows = x.index_select(0, order // K)
        dtype = torch.get_autocast_dtype(x.device.type) if torch.is_autocast_enabled(
            x.device.type) else x.dtype
        # One cast for all experts: a cast per slice would cost more than the products.
        gate_up, down = self.gate_up.to(dtype).unbind(0), self.down.to(dtype).unbind(0)
        parts = rows.to(dtype).split(counts.tolist())
        out = [self.expert(p, gu, d) for p, gu, d in zip(parts, gate_up, down) if len(p)]
        y = torch.cat(out) * weight.flatten()[order, None].to(dtype)
        return torch.zeros_like(x).index_add(0, order // K, y.to(x.dtype)), aux

    @staticmethod
    def expert(x, gate_up, down):
        gate, up = F.linear(x, gate_up).chunk(2, dim=-1)
        return F.linear(F.silu(gate) * up, down)


class Layer(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.eps = c.rms_norm_eps
        self.input_norm = nn.Parameter(torch.ones(c.hidden_size))
        self.post_norm = nn.Parameter(torch.ones(c.hidden_size))
        self.attention = Attention(c)
        self.experts = Experts(c)


class Lexicon(nn.Module):
    def __init__(self, config):
        super().__init__()
        c = self.config = config
        self.embed = nn.Parameter(torch.empty(c.vocab_size, c.hidden_size))
        self.layers = nn.ModuleList(Layer(c) for _ in range(c.num_hidden_layers))
        self.norm = nn.Parameter(torch.ones(c.hidden_size))
        self.head = nn.Parameter(torch.empty(c.vocab_size, c.hidden_size))
        for name, p in self.named_parameters():
            if p.dim() > 1:
                # Outputs onto the residual stream start small, so that depth does not inflate it.
                out = name.endswith((".o", ".down"))
                nn.init.normal_(p, std=0.02 / (2 * c.num_hidden_layers) ** 0.5 if out else 0.02)
        nn.init.normal_(self.embed, std=0.05)

    def forward(self, tokens, keep):
        """tokens: [B, T]; keep: indices into B*T whose logits are wanted -> (logits, aux loss)

        Nothing after the last layer's attention mixes positions, so that layer's experts and the
        head run on the kept rows alone: about a quarter of the whole cost.
        """
        c, (B, T) = self.config, tokens.shape
        cos, sin = rope_table(T, c, tokens.device)
        causal = torch.full((T, T), float("-inf"), device=tokens.device).triu(1)
        x = F.embedding(tokens, self.embed)
        aux = 0.0
        for i, layer in enumerate(self.layers):
            x = x + layer.attention(rms_norm(x, layer.input_norm, layer.eps), cos, sin, causal)
            if i + 1 == c.num_hidden_layers:
                x = x.reshape(B * T, -1).index_select(0, keep)
            y, balance = layer.experts(rms_norm(x, layer.post_norm, layer.eps).flatten(0, -2))
            x = x + y.view_as(x)
            aux = aux + balance
        x = rms_norm(x, self.norm, c.rms_norm_eps)
        return F.linear(x, self.head).float(), aux / c.num_hidden_layers

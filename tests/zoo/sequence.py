"""Recurrent networks, networks over time, and models with several inputs or outputs, written by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from autoprune.task.data import Inputs
from tests.zoo.transformers_hub import VOCAB, ids, stirred


class LSTMClassifier(nn.Module):
    """The last hidden state of the last layer goes to the head."""

    def __init__(self, hidden_size: int = 12, num_layers: int = 1, proj_size: int = 0, num_classes: int = 5) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCAB, 10)
        self.lstm = nn.LSTM(10, hidden_size, num_layers, batch_first=True, proj_size=proj_size)
        self.fc = nn.Linear(proj_size or hidden_size, num_classes)

    def forward(self, tokens: Tensor) -> Tensor:
        _, (h_n, _) = self.lstm(self.embedding(tokens))
        return self.fc(h_n[-1])


class BiLSTMTagger(nn.Module):
    def __init__(self, num_tags: int = 4) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCAB, 10)
        self.lstm = nn.LSTM(10, 8, num_layers=2, batch_first=True, bidirectional=True, dropout=0.1)
        self.hidden2tag = nn.Linear(2 * 8, num_tags)

    def forward(self, tokens: Tensor) -> Tensor:
        out, _ = self.lstm(self.embedding(tokens))
        return self.hidden2tag(out)


class PackedLSTM(nn.Module):
    """Sentences of several lengths in one packed batch."""

    def __init__(self, num_classes: int = 5) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCAB, 10, padding_idx=0)
        self.lstm = nn.LSTM(10, 12, batch_first=True)
        self.fc = nn.Linear(12, num_classes)

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        packed = pack_padded_sequence(self.embedding(tokens), lengths.cpu(), batch_first=True, enforce_sorted=False)
        out, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True)
        return self.fc(out.sum(1) / lengths.unsqueeze(1))


class GRUClassifier(nn.Module):
    def __init__(self, num_classes: int = 5) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCAB, 10)
        self.gru = nn.GRU(10, 12, batch_first=True)
        self.norm = nn.LayerNorm(12)
        self.fc = nn.Linear(12, num_classes)

    def forward(self, tokens: Tensor) -> Tensor:
        out, _ = self.gru(self.embedding(tokens))
        return self.fc(self.norm(out[:, -1]))


class BiGRU(nn.Module):
    """Two layers, two directions; their last states side by side."""

    def __init__(self, num_classes: int = 5) -> None:
        super().__init__()
        self.gru = nn.GRU(6, 8, num_layers=2, batch_first=True, bidirectional=True)
        self.fc1 = nn.Linear(16, 12)
        self.fc2 = nn.Linear(12, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        _, h_n = self.gru(x)
        return self.fc2(F.relu(self.fc1(torch.cat([h_n[-2], h_n[-1]], dim=1))))


class PlainRNN(nn.Module):
    """Time first, an initial state of zeros of its own."""

    def __init__(self, hidden_size: int = 12) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.rnn = nn.RNN(6, hidden_size, nonlinearity="relu")
        self.fc = nn.Linear(hidden_size, 3)

    def forward(self, x: Tensor) -> Tensor:
        h0 = x.new_zeros(1, x.size(0), self.hidden_size)
        out, _ = self.rnn(x.transpose(0, 1), h0)
        return self.fc(out.mean(dim=0))


class LSTMCellLoop(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inp = nn.Linear(6, 10)
        self.cell = nn.LSTMCell(10, 12)
        self.fc = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.inp(x))
        state = None
        outputs = []
        for t in range(x.size(1)):
            state = self.cell(x[:, t], state)
            outputs.append(self.fc(state[0]))
        return torch.stack(outputs, dim=1)


class GRUCellLoop(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(6, 12)
        self.fc = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = None
        for step in x.unbind(dim=1):
            h = self.cell(step, h)
        return self.fc(h)


class CRNN(nn.Module):
    """Text recognition: columns of a convolutional map are the steps of an LSTM."""

    def __init__(self, num_classes: int = 7) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 3, padding=1)
        self.conv2 = nn.Conv2d(6, 8, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(8)
        self.rnn = nn.LSTM(8 * 2, 10, bidirectional=True, batch_first=True)
        self.fc = nn.Linear(20, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.bn2(self.conv2(x))), (2, 1))
        b, c, h, w = x.size()
        x = x.permute(0, 3, 1, 2).reshape(b, w, c * h)
        x, _ = self.rnn(x)
        return F.log_softmax(self.fc(x), dim=2)


class BahdanauAttention(nn.Module):
    def __init__(self, hidden_size: int, attn_size: int) -> None:
        super().__init__()
        self.w_query = nn.Linear(hidden_size, attn_size)
        self.w_key = nn.Linear(hidden_size, attn_size, bias=False)
        self.v = nn.Linear(attn_size, 1, bias=False)

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        scores = self.v(torch.tanh(self.w_query(query).unsqueeze(1) + self.w_key(keys))).squeeze(-1)
        weights = torch.softmax(scores, dim=-1)
        return torch.bmm(weights.unsqueeze(1), keys).squeeze(1)


class Seq2SeqGRU(nn.Module):
    def __init__(self, hidden_size: int = 12) -> None:
        super().__init__()
        self.src_embedding = nn.Embedding(VOCAB, 10)
        self.tgt_embedding = nn.Embedding(VOCAB, 10)
        self.encoder = nn.GRU(10, hidden_size, batch_first=True)
        self.attention = BahdanauAttention(hidden_size, 9)
        self.decoder = nn.GRUCell(10 + hidden_size, hidden_size)
        self.out = nn.Linear(2 * hidden_size, VOCAB)

    def forward(self, src: Tensor, tgt: Tensor) -> Tensor:
        encoded, hidden = self.encoder(self.src_embedding(src))
        h = hidden[-1]
        embedded = self.tgt_embedding(tgt)
        logits = []
        for t in range(tgt.size(1)):
            context = self.attention(h, encoded)
            h = self.decoder(torch.cat([embedded[:, t], context], dim=-1), h)
            logits.append(self.out(torch.cat([h, context], dim=-1)))
        return torch.stack(logits, dim=1)


class TemporalBlock(nn.Module):
    """Conv-TasNet: pointwise, dilated depthwise, and two pointwise outputs: residual and skip."""

    def __init__(self, channels: int, hidden: int, skip: int, dilation: int) -> None:
        super().__init__()
        self.conv1x1 = nn.Conv1d(channels, hidden, 1)
        self.prelu1 = nn.PReLU()
        self.norm1 = nn.GroupNorm(1, hidden)
        self.dsconv = nn.Conv1d(hidden, hidden, 3, padding=dilation, dilation=dilation, groups=hidden)
        self.prelu2 = nn.PReLU(hidden)
        self.norm2 = nn.GroupNorm(1, hidden)
        self.res_out = nn.Conv1d(hidden, channels, 1)
        self.skip_out = nn.Conv1d(hidden, skip, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.norm1(self.prelu1(self.conv1x1(x)))
        y = self.norm2(self.prelu2(self.dsconv(y)))
        return x + self.res_out(y), self.skip_out(y)


class ConvTasNet(nn.Module):
    """A mask for each source over a learned spectrum, decoded by one transposed convolution."""

    def __init__(self, num_filters: int = 10, num_sources: int = 2) -> None:
        super().__init__()
        self.num_filters, self.num_sources = num_filters, num_sources
        self.encoder = nn.Conv1d(1, num_filters, 8, stride=4, bias=False)
        self.norm = nn.GroupNorm(1, num_filters)
        self.bottleneck = nn.Conv1d(num_filters, 8, 1)
        self.blocks = nn.ModuleList([TemporalBlock(8, 12, 9, 2**i) for i in range(2)])
        self.mask = nn.Sequential(nn.PReLU(), nn.Conv1d(9, num_sources * num_filters, 1))
        self.decoder = nn.ConvTranspose1d(num_filters, 1, 8, stride=4, bias=False)

    def forward(self, wave: Tensor) -> Tensor:
        batch = wave.size(0)
        spectrum = F.relu(self.encoder(wave.unsqueeze(1)))
        x = self.bottleneck(self.norm(spectrum))
        skips: Tensor | float = 0.0
        for block in self.blocks:
            x, skip = block(x)
            skips = skips + skip
        masks = torch.sigmoid(self.mask(skips)).view(batch, self.num_sources, self.num_filters, -1)
        sources = masks * spectrum.unsqueeze(1)
        return self.decoder(sources.view(batch * self.num_sources, self.num_filters, -1)).view(
            batch, self.num_sources, -1
        )


class SpeakerNet(nn.Module):
    """Squeeze and excitation over time, then attentive statistics: weighted mean and deviation side by side."""

    def __init__(self, channels: int = 12, embedding: int = 6) -> None:
        super().__init__()
        self.conv = nn.Conv1d(8, channels, 5, padding=2)
        self.bn = nn.BatchNorm1d(channels)
        self.squeeze = nn.Linear(channels, 4)
        self.excite = nn.Linear(4, channels)
        self.attention = nn.Sequential(nn.Conv1d(channels, 6, 1), nn.Tanh(), nn.Conv1d(6, channels, 1))
        self.fc = nn.Linear(2 * channels, embedding)

    def forward(self, mel: Tensor) -> Tensor:
        x = self.bn(F.relu(self.conv(mel)))
        x = x * torch.sigmoid(self.excite(F.relu(self.squeeze(x.mean(dim=2))))).unsqueeze(2)
        w = F.softmax(self.attention(x), dim=2)
        mu = torch.sum(x * w, dim=2)
        sigma = torch.sqrt((torch.sum(x**2 * w, dim=2) - mu**2).clamp(min=1e-4))
        return F.normalize(self.fc(torch.cat([mu, sigma], dim=1)), dim=1)


class Highway(nn.Module):
    def __init__(self, size: int = 12, num_layers: int = 2) -> None:
        super().__init__()
        self.project = nn.Linear(8, size)
        self.nonlinear = nn.ModuleList([nn.Linear(size, size) for _ in range(num_layers)])
        self.gate = nn.ModuleList([nn.Linear(size, size) for _ in range(num_layers)])
        self.fc = nn.Linear(size, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.project(x)
        for nonlinear, gate in zip(self.nonlinear, self.gate, strict=True):
            t = torch.sigmoid(gate(x))
            x = t * F.relu(nonlinear(x)) + (1 - t) * x
        return self.fc(x)


class MixtureDensity(nn.Module):
    """Weights, means and deviations of Gaussians over a point in the plane."""

    def __init__(self, num_gaussians: int = 3, out_features: int = 2) -> None:
        super().__init__()
        self.num_gaussians, self.out_features = num_gaussians, out_features
        self.trunk = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 12), nn.ELU())
        self.pi = nn.Linear(12, num_gaussians)
        self.mu = nn.Linear(12, num_gaussians * out_features)
        self.sigma = nn.Linear(12, num_gaussians * out_features)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h = self.trunk(x)
        mu = self.mu(h).view(-1, self.num_gaussians, self.out_features)
        sigma = F.softplus(self.sigma(h)).view(-1, self.num_gaussians, self.out_features)
        return F.softmax(self.pi(h), dim=-1), mu, sigma


class VAE(nn.Module):
    """Mean and log-variance are halves of one projection; in eval mode the code is the mean."""

    def __init__(self, latent: int = 5) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(16, 14), nn.ReLU(), nn.Linear(14, 2 * latent))
        self.decoder = nn.Sequential(nn.Linear(latent, 12), nn.ReLU(), nn.Linear(12, 16), nn.Sigmoid())

    def reparameterize(self, mu: Tensor, logvar: Tensor) -> Tensor:
        return mu + torch.randn_like(mu) * torch.exp(0.5 * logvar) if self.training else mu

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mu, logvar = self.encoder(x).chunk(2, dim=-1)
        return self.decoder(self.reparameterize(mu, logvar)), mu, logvar


class DictOutputs(nn.Module):
    """A trunk with two heads, named in the output."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(8, 16), nn.LayerNorm(16), nn.SiLU())
        self.classifier = nn.Linear(16, 3)
        self.box = nn.Sequential(nn.Linear(16, 10), nn.ReLU(), nn.Linear(10, 4))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        features = self.trunk(x)
        return {"logits": self.classifier(features), "boxes": self.box(features).sigmoid()}


@dataclass
class ActorCriticOutput:
    policy: Tensor
    value: Tensor
    hidden: Tensor | None = None


class ActorCritic(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 12), nn.Tanh())
        self.actor, self.critic = nn.Linear(12, 4), nn.Linear(12, 1)

    def forward(self, observation: Tensor) -> ActorCriticOutput:
        h = self.body(observation)
        return ActorCriticOutput(policy=self.actor(h).softmax(-1), value=self.critic(h).squeeze(-1))


class TwoTower(nn.Module):
    """Recommendation: users and items meet in a dot product."""

    def __init__(self, num_users: int = 9, num_items: int = 11, dim: int = 8) -> None:
        super().__init__()
        self.user_embedding, self.item_embedding = nn.Embedding(num_users, dim), nn.Embedding(num_items, dim)
        self.user_tower = nn.Sequential(nn.Linear(dim, 12), nn.ReLU(), nn.Linear(12, 6))
        self.item_tower = nn.Sequential(nn.Linear(dim, 10), nn.ReLU(), nn.Linear(10, 6))

    def forward(self, user_id: Tensor, item_id: Tensor) -> Tensor:
        user = self.user_tower(self.user_embedding(user_id))
        return (user * self.item_tower(self.item_embedding(item_id))).sum(dim=-1)


def made(model: Callable[..., nn.Module], **options: object) -> Callable[[], nn.Module]:
    """How to make a model with weights that tell its channels apart."""
    return lambda: stirred(model(**options))


def drawn(*shape: int) -> Callable[[], Inputs]:
    return lambda: torch.randn(2, *shape)


SEQUENCE: dict[str, tuple[Callable[[], nn.Module], Callable[[], Inputs]]] = {
    "lstm_classifier": (made(LSTMClassifier), ids),
    "lstm_two_layers": (made(LSTMClassifier, num_layers=2), ids),
    "lstm_projected": (made(LSTMClassifier, num_layers=2, proj_size=7), ids),
    "bilstm_tagger": (made(BiLSTMTagger), ids),
    "packed_lstm": (made(PackedLSTM), lambda: {"tokens": ids(), "lengths": torch.tensor([4, 6])}),
    "gru_classifier": (made(GRUClassifier), ids),
    "bigru": (made(BiGRU), drawn(7, 6)),
    "plain_rnn": (made(PlainRNN), drawn(7, 6)),
    "lstm_cell_loop": (made(LSTMCellLoop), drawn(5, 6)),
    "gru_cell_loop": (made(GRUCellLoop), drawn(5, 6)),
    "crnn": (made(CRNN), drawn(1, 8, 12)),
    "seq2seq_gru": (made(Seq2SeqGRU), lambda: (ids(), ids(4))),
    "conv_tasnet": (made(ConvTasNet), drawn(48)),
    "speaker_net": (made(SpeakerNet), drawn(8, 10)),
    "highway": (made(Highway), drawn(8)),
    "mixture_density": (made(MixtureDensity), drawn(8)),
    "vae": (made(VAE), drawn(16)),
    "two_tower": (made(TwoTower), lambda: (torch.tensor([1, 7]), torch.tensor([4, 10]))),
    "dict_outputs": (made(DictOutputs), drawn(8)),
    "dataclass_outputs": (made(ActorCritic), drawn(8)),
}

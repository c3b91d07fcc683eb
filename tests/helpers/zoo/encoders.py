"""Text and speech encoders of transformers."""

from __future__ import annotations

import torch

from .configured import LANGUAGE, configured, masked_words

configured("bert", "BertForMaskedLM", "BertConfig", masked_words, **LANGUAGE)
configured("bert_classifier", "BertForSequenceClassification", "BertConfig", **LANGUAGE)
configured("roberta", "RobertaForMaskedLM", "RobertaConfig", **LANGUAGE)
configured("distilbert", "DistilBertForMaskedLM", "DistilBertConfig", vocab_size=50, dim=32, hidden_dim=44, n_layers=2,
           n_heads=4, max_position_embeddings=32)  # fmt: skip
configured("albert", "AlbertForMaskedLM", "AlbertConfig", embedding_size=20, **LANGUAGE)
configured("electra", "ElectraForMaskedLM", "ElectraConfig", embedding_size=20, **LANGUAGE)
configured("deberta_v2", "DebertaV2ForMaskedLM", "DebertaV2Config", relative_attention=True,
           pos_att_type=["p2c", "c2p"], position_buckets=8, **LANGUAGE)  # fmt: skip
configured("modernbert", "ModernBertForMaskedLM", "ModernBertConfig", **LANGUAGE)
configured("mpnet", "MPNetForMaskedLM", "MPNetConfig", **LANGUAGE)
configured("fnet", "FNetForMaskedLM", "FNetConfig", vocab_size=50, hidden_size=32, intermediate_size=44,
           num_hidden_layers=2, max_position_embeddings=32, pad_token_id=0)  # fmt: skip
configured("squeezebert", "SqueezeBertForMaskedLM", "SqueezeBertConfig", **{**LANGUAGE, "embedding_size": 32})
configured("xlm_roberta", "XLMRobertaForTokenClassification", "XLMRobertaConfig", **LANGUAGE)
configured("wav2vec2", "Wav2Vec2ForCTC", "Wav2Vec2Config", lambda: {"input_values": torch.randn(1, 400)}, vocab_size=20,
           hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=44, conv_dim=(8, 8),
           conv_stride=(5, 2), conv_kernel=(10, 3), num_conv_pos_embeddings=8,
           num_conv_pos_embedding_groups=4)  # fmt: skip
configured("hubert", "HubertForCTC", "HubertConfig", lambda: {"input_values": torch.randn(1, 400)}, vocab_size=20,
           hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=44, conv_dim=(8, 8),
           conv_stride=(5, 2), conv_kernel=(10, 3), num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=4,
           num_feat_extract_layers=2)  # fmt: skip

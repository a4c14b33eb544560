package attack

// kinds returns the kinds of attack. Those that hold connections for seconds weigh little:
// an attacker that holds sends nothing else.
func kinds() []kind {
	return []kind{
		// What the contract allows.
		{"at-most", 4, sendAtMost},
		{"batch", 8, sendBatch},
		{"bindings", 6, sendBindings},
		{"embeddings", 3, sendEmbeddings},
		{"explain", 4, sendExplain},
		{"filter", 8, sendFilter},
		{"hurried", 4, sendHurried},
		{"ids", 6, sendIDs},
		{"storm", 4, storm},
		{"vectors", 8, sendVectors},

		// Messages that it does not allow, and what is none.
		{"bomb-gzip", 3, sendGzipBomb},
		{"bomb-zstd", 3, sendZstdBomb},
		{"empties", 6, sendEmpties},
		{"envelopes", 4, sendEnvelopes},
		{"garbage", 6, sendGarbage},
		{"headers", 4, sendHeaders},
		{"json", 4, sendJSON},
		{"names", 3, sendNames},
		{"nested", 4, sendNested},
		{"numbers", 4, sendNumbers},
		{"others", 3, callOthers},

		// Connections of HTTP/1.1.
		{"churn", 3, churn},
		{"hoard", 1, hoard},
		{"odd", 3, sendOddly},
		{"pipeline", 2, pipeline},
		{"slow-send", 2, sendSlowly},
		{"slow-take", 2, takeSlowly},

		// Connections of HTTP/2.
		{"h2-continuation", 2, continueHeaders},
		{"h2-flood", 3, flood},
		{"h2-frames", 3, breakFrames},
		{"h2-reset-headers", 2, resetHeaders},
		{"h2-reset-queries", 2, resetQueries},
		{"h2-streams", 1, holdStreams},
		{"h2-upload", 1, upload},
		{"h2-window", 2, narrow},
		{"watch", 1, watch},
	}
}

// KindNames returns the names of the kinds of attack.
func KindNames() []string {
	var names []string
	for _, k := range kinds() {
		names = append(names, k.name)
	}
	return names
}

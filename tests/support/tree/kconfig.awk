# A stand-in for kconfig: Kconfig files, then what is asked for; it holds as far as a symbol is known and what it
# depends on is on. `base` says whether defaults count. A symbol stands below those it depends on.
FILENAME ~ /Kconfig$/ {
	if ($1 == "config") { symbol = $2; order[++count] = symbol }
	if ($1 == "depends") needs[symbol] = $3
	if ($1 == "default") defaults[symbol] = $2
	next
}
/^CONFIG_/ {
	split($0, part, "=")
	asked[substr(part[1], 8)] = part[2]
}
/ is not set$/ { asked[substr($2, 8)] = "n" }
END {
	for (i = 1; i <= count; i++) {
		symbol = order[i]
		value = "n"
		if (symbol in asked) value = asked[symbol]
		else if (base == "alldefconfig" && symbol in defaults) value = defaults[symbol]
		if (symbol in needs && values[needs[symbol]] !~ /^[ym]$/) value = "n"
		values[symbol] = value
		print value == "n" ? "# CONFIG_" symbol " is not set" : "CONFIG_" symbol "=" value
	}
}

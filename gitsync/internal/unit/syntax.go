package unit

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

const (
	// maxLine is the length from which systemd does not read a line, in bytes
	// (LONG_LINE_MAX).
	maxLine    = 1 << 20
	whitespace = " \t\n\r"
	bom        = "\xef\xbb\xbf"
)

// assignment is one line key=value of a unit file.
type assignment struct{ section, key, value string }

// parse parses a unit file as systemd does (systemd.syntax(7)). At some faults
// systemd stops reading. Then parse returns the assignments before the fault and an
// error. It ignores lines that are not assignments, about which systemd only warns.
func parse(content []byte) ([]assignment, error) {
	var (
		all     []assignment
		section string
		joined  strings.Builder // the preceding lines, which end with a backslash
		bomSeen bool
		number  int
	)
	end := func(line string) error {
		line = strings.Trim(line, whitespace)
		switch {
		case line == "":
			return nil
		case !utf8.ValidString(line):
			return fmt.Errorf("line %d is not UTF-8", number)
		case line[0] == '[':
			name, ok := strings.CutSuffix(line[1:], "]")
			if !ok || strings.ContainsFunc(name, func(c rune) bool { return c < ' ' || c == 0x7f || strings.ContainsRune(`"'\`, c) }) {
				return fmt.Errorf("line %d: %s is not a section", number, line)
			}
			section = name
			return nil
		}
		if key, value, ok := strings.Cut(line, "="); ok && key != "" && section != "" {
			all = append(all, assignment{section, strings.Trim(key, whitespace), strings.Trim(value, whitespace)})
		}
		return nil
	}
	for len(content) > 0 {
		var line string
		line, content = cutLine(content)
		number++
		if len(line) >= maxLine || joined.Len()+len(line) > maxLine {
			return all, fmt.Errorf("line %d is longer than 1 MiB", number)
		}
		if text := strings.TrimLeft(line, whitespace); text != "" && strings.ContainsRune("#;", rune(text[0])) {
			continue // a comment, which does not end a continued line
		}
		if !bomSeen {
			line, bomSeen = strings.CutPrefix(line, bom)
		}
		head := strings.TrimRight(line, `\`)
		if (len(line)-len(head))%2 == 1 {
			joined.WriteString(line[:len(line)-1] + " ")
			continue
		}
		joined.WriteString(line)
		if err := end(joined.String()); err != nil {
			return all, err
		}
		joined.Reset()
	}
	return all, end(joined.String()) // the last line may end with a backslash
}

// cutLine splits content after the first line. As in systemd, a line ends with LF,
// CR or NUL, or with two different ones of these.
func cutLine(content []byte) (line string, rest []byte) {
	end := bytes.IndexAny(content, "\n\r\x00")
	if end < 0 {
		return string(content), nil
	}
	next := end + 1
	if next < len(content) && content[end] != 0 && content[next] != content[end] && bytes.IndexByte([]byte("\n\r\x00"), content[next]) >= 0 {
		next++
		if next < len(content) && content[next-1] != 0 && content[next] == 0 {
			next++
		}
	}
	return string(content[:end]), content[next:]
}

// errQuotes is the error for a word with an unclosed quote.
var errQuotes = errors.New("unbalanced quotes")

// cutWord splits text after the first word, as systemd does. Whitespace separates
// words. Quotes anywhere in a word protect whitespace and are removed. With unescape,
// C escapes are resolved, and other escapes are kept. Without it, backslashes have no
// meaning. ok is false if there is no word.
func cutWord(text string, unescape bool) (word, rest string, ok bool, err error) {
	text = strings.TrimLeft(text, whitespace)
	if text == "" {
		return "", "", false, nil
	}
	var b strings.Builder
	var quote byte
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case c == '\\' && unescape:
			plain, used := cunescape(text[i+1:])
			if used > 0 {
				b.WriteString(plain)
				i += used
				continue
			}
			b.WriteByte(c)
			if i+1 < len(text) { // the next character loses its meaning
				i++
				b.WriteByte(text[i])
			}
		case quote != 0 && c == quote:
			quote = 0
		case quote != 0:
			b.WriteByte(c)
		case c == '"' || c == '\'':
			quote = c
		case strings.IndexByte(whitespace, c) >= 0:
			return b.String(), strings.TrimLeft(text[i:], whitespace), true, nil
		default:
			b.WriteByte(c)
		}
	}
	if quote != 0 {
		return "", "", false, errQuotes
	}
	return b.String(), "", true, nil
}

// cunescape resolves the C escape at the beginning of the text, which lacks the
// backslash. used is the length of the escape, or 0 if it is not an escape.
func cunescape(text string) (plain string, used int) {
	if text == "" {
		return "", 0
	}
	if i := strings.IndexByte(`abfnrtv\"'s`, text[0]); i >= 0 {
		return "\a\b\f\n\r\t\v\\\"' "[i : i+1], 1
	}
	number := func(digits string, length, base int) int {
		if len(digits) < length {
			return 0
		}
		n := 0
		for i := range length {
			d := hex(digits[i])
			if d < 0 || d >= base {
				return 0 // like the number 0, which is not a valid escape
			}
			n = n*base + d
		}
		return n
	}
	switch text[0] {
	case 'x':
		if n := number(text[1:], 2, 16); n > 0 {
			return string([]byte{byte(n)}), 3
		}
	case 'u':
		if n := number(text[1:], 4, 16); n > 0 && utf8.ValidRune(rune(n)) {
			return string(rune(n)), 5
		}
	case 'U':
		if n := number(text[1:], 8, 16); n > 0 && n <= utf8.MaxRune && utf8.ValidRune(rune(n)) {
			return string(rune(n)), 9
		}
	default:
		if n := number(text, 3, 8); n > 0 && n < 256 {
			return string([]byte{byte(n)}), 3
		}
	}
	return "", 0
}

// boolean parses the value of a boolean setting. ok is false if it is not a boolean.
func boolean(value string) (yes, ok bool) {
	switch strings.ToLower(value) {
	case "1", "yes", "y", "true", "t", "on":
		return true, true
	case "0", "no", "n", "false", "f", "off":
		return false, true
	}
	return false, false
}

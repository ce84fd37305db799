package extjson

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

func TestCheckJSON(t *testing.T) {
	for _, tc := range []struct{ text, reason string }{
		{`{"a":[1,-2.5e3,"x",null,true,false,{}],"b":{}}`, ""},
		{`"\u00e4\ud83d\ude00"`, ""}, {`0`, ""}, {`-0.0`, ""}, {`1e131071`, ""}, {`1e-16383`, ""},
		{"{\t\"a\" :\r 1 }", ""},
		{`"\u0000"`, "nul"}, {`{"a\u0000":1}`, "nul"}, {`"\\u0000"`, ""},
		{`"\ud800"`, "invalid_utf8"}, {`"\udc00"`, "invalid_utf8"}, {`"\ud800\ud800"`, "invalid_utf8"}, {`"\ud800x"`, "invalid_utf8"}, {"\"\xff\"", "invalid_utf8"},
		{`1e131073`, "number_out_of_range"}, {`1e-16384`, "number_out_of_range"}, {`1e99999999999999999999`, "number_out_of_range"},
		{`-1e-99999999999999999999`, "number_out_of_range"}, {strings.Repeat("9", 131073), "number_out_of_range"},
		{`{"a":1,"a":2}`, "duplicate_key"}, {`{"a":1,"\u0061":2}`, "duplicate_key"}, {`{"a":{"a":1}}`, ""},
		{strings.Repeat("[", 1002) + strings.Repeat("]", 1002), "too_deep"},
		{``, "bad_json"}, {`{`, "bad_json"}, {`[1,]`, "bad_json"}, {`{"a"}`, "bad_json"}, {`01`, "bad_json"}, {`1.`, "bad_json"}, {`.5`, "bad_json"},
		{`NaN`, "bad_json"}, {`"a`, "bad_json"}, {`"\`, "bad_json"}, {`"\u0`, "bad_json"}, {`"\x"`, "bad_json"}, {`"\u00g0"`, "bad_json"}, {"\"\n\"", "bad_json"}, {`1 2`, "bad_json"}, {`nul`, "bad_json"}, {`1e`, "bad_json"}, {`+1`, "bad_json"},
	} {
		reason := ""
		if err := CheckJSON([]byte(tc.text), RejectNUL); err != nil {
			reason = err.(*Refusal).Reason
		}
		if reason != tc.reason {
			t.Errorf("CheckJSON(%.60s) = %q; want %q", tc.text, reason, tc.reason)
		}
	}
}

func TestUnescape(t *testing.T) {
	for text, want := range map[string]string{
		`{"a\u0000":"\u0000\\u0000\\\u0000"}`:   `{"a�":"�\\u0000\\�"}`,
		`"\u00b0C \ud83c\udf21 \u0041\n\u001f"`: `"°C 🌡 \u0041\n\u001f"`,
		`[1,"plain"]`:                           `[1,"plain"]`,
	} {
		if err := CheckJSON([]byte(text), ReplaceNUL); err != nil {
			t.Errorf("%s: %v", text, err)
		}
		if got := string(Unescape([]byte(text))); got != want {
			t.Errorf("Unescape(%s) = %s; want %s", text, got, want)
		}
	}
}

func TestRefusalNamesThePlace(t *testing.T) {
	err := CheckJSON([]byte(`{"a":[1,{"b":"\u0000"}]}`), RejectNUL)
	if err == nil || !strings.HasPrefix(err.Error(), "a.1.b holds a NUL") {
		t.Errorf("%v", err)
	}
}

func TestFields(t *testing.T) {
	for _, tc := range []struct{ text, want string }{
		{`{}`, ""}, {` { "a" : 1 , "b":[ 2 ] } `, "a=1;b=[ 2 ];"}, {`{"\u0061":"x"}`, `a="x";`},
		{`{"a":1,"a":2}`, "error"}, {`{"a":1}x`, "error"}, {`[1]`, "error"}, {``, "error"}, {`{"a":1,}`, "error"}, {`{"a":01}`, "error"},
	} {
		var got strings.Builder
		err := Fields([]byte(tc.text), func(key string, raw []byte) error {
			fmt.Fprintf(&got, "%s=%s;", key, raw)
			return nil
		})
		if err != nil {
			got.Reset()
			got.WriteString("error")
		}
		if got.String() != tc.want {
			t.Errorf("Fields(%s) = %s, %v; want %s", tc.text, got.String(), err, tc.want)
		}
	}
}

// CheckJSON accepts only JSON, and all JSON that jsonb can store.
func FuzzCheckJSON(f *testing.F) {
	f.Add([]byte(`{"a":[1,-2.5e3,"x\u0000\ud800",null,true,false,{}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		valid := json.Valid(text)
		err := CheckJSON(bytes.Clone(text), RejectNUL)
		if err == nil && !valid {
			t.Fatalf("accepted, but not JSON: %q", text)
		}
		if r, ok := err.(*Refusal); ok && r.Reason == "bad_json" && valid && len(bytes.TrimSpace(text)) == len(text) {
			t.Fatalf("JSON, but rejected: %q: %v", text, err)
		}
	})
}

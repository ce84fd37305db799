package redact

import (
	"strings"
	"testing"
)

func TestText(t *testing.T) {
	for _, tc := range []struct{ in, want string }{
		{"", ""},
		{"dial tcp 127.0.0.1:5432: refused", "dial tcp 127.0.0.1:5432: refused"},
		{"postgres://u:s3cret@db/x", "postgres://u:xxxxx@db/x"},
		{"postgres://u@db/x", "postgres://u@db/x"},
		{`parse "postgres://u:p@ss/w:rd@db:bad/x": invalid port`, `parse "postgres://u:xxxxx@db:bad/x": invalid port`},
		{"a mongodb://u:1@h and http://v:2@i/", "a mongodb://u:xxxxx@h and http://v:xxxxx@i/"},
		{"host=db password=s3cret user=u", "host=db password=xxxxx user=u"},
		{`host=db password='s3 c\'ret' user=u`, "host=db password=xxxxx user=u"},
		{"password='never closed", "password=xxxxx"},
		{"PASSWORD=s3cret", "PASSWORD=xxxxx"},
		{"postgres://db/x?password=s3cret&sslmode=disable", "postgres://db/x?password=xxxxx&sslmode=disable"},
		{"password= empty", "password= empty"},
		{"password=x user=u", "password=xxxxx user=u"},
	} {
		if got := Text(tc.in); got != tc.want {
			t.Errorf("Text(%q) = %q; want %q", tc.in, got, tc.want)
		}
	}
}

func FuzzText(f *testing.F) {
	f.Add("u", "p@:/", "h")
	f.Fuzz(func(t *testing.T, user, password, host string) {
		if len(password) < 4 || strings.ContainsAny(user+password+host, " \t\r\n\"'`") ||
			strings.ContainsAny(user, ":@") || strings.Contains(user+"@"+host+mask+"://u:password=@/", password) {
			return
		}
		if got := Text("postgres://" + user + ":" + password + "@" + host); strings.Contains(got, password) {
			t.Fatalf("the password %q is in %q", password, got)
		}
	})
}

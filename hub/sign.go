package hub

import (
	"bufio"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"time"
)

// awsKey signs as AWS does.
type awsKey struct{ id, secret, session string }

// s3Signer makes presigned addresses (AWS Signature Version 4, query parameters). Without a key it makes plain ones, for public buckets.
type s3Signer struct {
	base   *url.URL
	region string
	key    awsKey
	bearer string // of Google's store: a token in the place of a signature
}

func (s *s3Signer) header() http.Header {
	if s.bearer == "" {
		return nil
	}
	return http.Header{"Authorization": {"Bearer " + s.bearer}}
}

func (s *s3Signer) address(method, key string, query url.Values, now time.Time) string {
	u := *s.base
	path := u.Path
	if key != "" || path == "" {
		path += "/" + key
	}
	q := url.Values{}
	for k, v := range query {
		q[k] = v
	}
	if s.key.id == "" {
		u.Path, u.RawPath, u.RawQuery = path, awsEscape(path, true), awsQuery(q)
		return u.String()
	}
	date := now.UTC().Format("20060102T150405Z")
	scope := date[:8] + "/" + s.region + "/s3/aws4_request"
	q.Set("X-Amz-Algorithm", "AWS4-HMAC-SHA256")
	q.Set("X-Amz-Credential", s.key.id+"/"+scope)
	q.Set("X-Amz-Date", date)
	q.Set("X-Amz-Expires", strconv.Itoa(int(signedFor/time.Second)))
	q.Set("X-Amz-SignedHeaders", "host")
	if s.key.session != "" {
		q.Set("X-Amz-Security-Token", s.key.session)
	}
	escaped := awsEscape(path, true)
	canonical := strings.Join([]string{method, escaped, awsQuery(q), "host:" + u.Host + "\n", "host", "UNSIGNED-PAYLOAD"}, "\n")
	sum := sha256.Sum256([]byte(canonical))
	text := "AWS4-HMAC-SHA256\n" + date + "\n" + scope + "\n" + hex.EncodeToString(sum[:])
	k := []byte("AWS4" + s.key.secret)
	for _, part := range []string{date[:8], s.region, "s3", "aws4_request"} {
		k = mac(k, part)
	}
	u.Path, u.RawPath = path, escaped
	u.RawQuery = awsQuery(q) + "&X-Amz-Signature=" + hex.EncodeToString(mac(k, text))
	return u.String()
}

func mac(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	_, _ = h.Write([]byte(text))
	return h.Sum(nil)
}

// awsEscape escapes all but unreserved characters, and slashes if they separate a path.
func awsEscape(s string, path bool) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', strings.IndexByte("-._~", c) >= 0, path && c == '/':
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

func awsQuery(q url.Values) string {
	keys := make([]string, 0, len(q))
	for k := range q {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	var parts []string
	for _, k := range keys {
		for _, v := range q[k] {
			parts = append(parts, awsEscape(k, false)+"="+awsEscape(v, false))
		}
	}
	return strings.Join(parts, "&")
}

// s3 reads where S3 is and who asks: the environment, then ~/.aws.
func (b *bucket) s3() error {
	profile := firstOf("AWS_PROFILE", "AWS_DEFAULT_PROFILE")
	if profile == "" {
		profile = "default"
	}
	region := firstOf("AWS_REGION", "AWS_DEFAULT_REGION")
	key := awsKey{os.Getenv("AWS_ACCESS_KEY_ID"), os.Getenv("AWS_SECRET_ACCESS_KEY"), os.Getenv("AWS_SESSION_TOKEN")}
	if key.id == "" {
		kept := iniSection(awsFile("AWS_SHARED_CREDENTIALS_FILE", "credentials"), profile)
		key = awsKey{kept["aws_access_key_id"], kept["aws_secret_access_key"], kept["aws_session_token"]}
	}
	if region == "" {
		name := profile
		if name != "default" {
			name = "profile " + name
		}
		region = iniSection(awsFile("AWS_CONFIG_FILE", "config"), name)["region"]
	}
	if region == "" {
		region = "us-east-1"
	}
	if !part.MatchString(region) {
		return &Error{Repo: b.written, Msg: fmt.Sprintf("the region %q is none", plain(region)), Hint: "check AWS_REGION"}
	}
	var err error
	switch endpoint := firstOf("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"); {
	case endpoint != "":
		if b.base, err = endpointOf(b.written, "AWS_ENDPOINT_URL", endpoint); err != nil {
			return err
		}
		b.base.Path += "/" + b.name
	case strings.Contains(b.name, "."): // certificates do not reach below one more dot
		b.base = &url.URL{Scheme: "https", Host: "s3." + region + ".amazonaws.com", Path: "/" + b.name}
	default:
		b.base = &url.URL{Scheme: "https", Host: b.name + ".s3." + region + ".amazonaws.com"}
	}
	b.sign = &s3Signer{base: b.base, region: region, key: key}
	return nil
}

// gs reads where Google's store is and who asks. Its XML interface is S3's.
func (b *bucket) gs() error {
	endpoint := os.Getenv("STORAGE_EMULATOR_HOST")
	if endpoint == "" {
		endpoint = "https://storage.googleapis.com"
	} else if !strings.Contains(endpoint, "://") {
		endpoint = "http://" + endpoint
	}
	var err error
	if b.base, err = endpointOf(b.written, "STORAGE_EMULATOR_HOST", endpoint); err != nil {
		return err
	}
	b.base.Path += "/" + b.name
	s := &s3Signer{base: b.base, region: "auto", key: awsKey{id: os.Getenv("GS_ACCESS_KEY_ID"), secret: os.Getenv("GS_SECRET_ACCESS_KEY")}}
	if s.key.id == "" {
		s.bearer = firstOf("GOOGLE_OAUTH_ACCESS_TOKEN", "CLOUDSDK_AUTH_ACCESS_TOKEN")
	}
	b.sign = s
	return nil
}

// azSigner appends a shared access signature.
type azSigner struct {
	base    *url.URL
	account string
	key     []byte // nil: sas is used as it is, or nothing
	name    string
	sas     url.Values
}

func (s *azSigner) header() http.Header { return http.Header{"X-Ms-Version": {azVersion}} }

const azVersion = "2021-12-02"

func (s *azSigner) address(_, key string, query url.Values, now time.Time) string {
	u := *s.base
	if key != "" {
		u.Path += "/" + key
		u.RawPath = awsEscape(u.Path, true)
	}
	q := url.Values{}
	for _, from := range []url.Values{query, s.sas} {
		for k, v := range from {
			q[k] = v
		}
	}
	if s.key != nil {
		// A service SAS for the container: the fields in their order, unused ones empty.
		const permissions = "racwl"
		expiry := now.UTC().Add(signedFor).Format("2006-01-02T15:04:05Z")
		fields := []string{permissions, "", expiry, "/blob/" + s.account + "/" + s.name, "", "", "", azVersion, "c", "", "", "", "", "", "", ""}
		q.Set("sp", permissions)
		q.Set("se", expiry)
		q.Set("sv", azVersion)
		q.Set("sr", "c")
		q.Set("sig", base64.StdEncoding.EncodeToString(mac(s.key, strings.Join(fields, "\n"))))
	}
	u.RawQuery = q.Encode()
	return u.String()
}

// az reads where Azure's store is and who asks.
func (b *bucket) az() error {
	account := firstOf("AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_ACCOUNT_NAME")
	endpoint := os.Getenv("AZURE_STORAGE_ENDPOINT")
	if !part.MatchString(account) {
		return &Error{Repo: b.written, Msg: "the storage account is not known", Hint: "set AZURE_STORAGE_ACCOUNT"}
	}
	if endpoint == "" {
		endpoint = "https://" + account + ".blob.core.windows.net"
	}
	var err error
	if b.base, err = endpointOf(b.written, "AZURE_STORAGE_ENDPOINT", endpoint); err != nil {
		return err
	}
	b.base.Path += "/" + b.name
	s := &azSigner{base: b.base, account: account, name: b.name}
	if key := firstOf("AZURE_STORAGE_KEY", "AZURE_STORAGE_ACCOUNT_KEY"); key != "" {
		if s.key, err = base64.StdEncoding.DecodeString(key); err != nil {
			return &Error{Repo: b.written, Msg: "AZURE_STORAGE_KEY is no key", Hint: "copy it again"}
		}
	} else if sas := os.Getenv("AZURE_STORAGE_SAS_TOKEN"); sas != "" {
		if s.sas, err = url.ParseQuery(strings.TrimPrefix(sas, "?")); err != nil {
			return &Error{Repo: b.written, Msg: "AZURE_STORAGE_SAS_TOKEN is no token", Hint: "copy it again"}
		}
	}
	b.sign = s
	return nil
}

func firstOf(names ...string) string {
	for _, name := range names {
		if v := os.Getenv(name); v != "" {
			return v
		}
	}
	return ""
}

func awsFile(variable, name string) string {
	if p := os.Getenv(variable); p != "" {
		return expand(p)
	}
	if h, err := os.UserHomeDir(); err == nil {
		return filepath.Join(h, ".aws", name)
	}
	return ""
}

// iniSection reads the keys of one section of a file such as ~/.aws/credentials.
func iniSection(path, section string) map[string]string {
	out := map[string]string{}
	f, err := os.Open(path)
	if err != nil {
		return out
	}
	defer f.Close()
	in := false
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if strings.HasPrefix(line, "[") {
			in = strings.TrimSpace(strings.Trim(line, "[]")) == section
			continue
		}
		if k, v, ok := strings.Cut(line, "="); ok && in && !strings.HasPrefix(line, "#") {
			out[strings.TrimSpace(k)] = strings.TrimSpace(v)
		}
	}
	return out
}

import java.io.IOException;
import java.net.URI;
import java.net.URLDecoder;
import java.nio.charset.StandardCharsets;
import java.security.GeneralSecurityException;
import java.security.MessageDigest;
import java.time.Instant;
import java.time.ZoneOffset;
import java.time.format.DateTimeFormatter;
import java.util.*;
import java.util.stream.Collectors;
import javax.crypto.Mac;
import javax.crypto.spec.SecretKeySpec;
import javax.security.auth.callback.Callback;
import javax.security.auth.callback.UnsupportedCallbackException;
import javax.security.auth.login.AppConfigurationEntry;
import org.apache.kafka.common.security.auth.AuthenticateCallbackHandler;
import org.apache.kafka.common.security.oauthbearer.OAuthBearerToken;
import org.apache.kafka.common.security.oauthbearer.OAuthBearerValidatorCallback;

/** Verifies the presigned URL that MSK IAM clients send as a token, as MSK would: place, action, life, signature. */
public final class MskIamHandler implements AuthenticateCallbackHandler {
    private static final DateTimeFormatter DATE =
        DateTimeFormatter.ofPattern("yyyyMMdd'T'HHmmss'Z'").withZone(ZoneOffset.UTC);
    private Map<String, ?> options; // of the JAAS entry: region, and key_<access key id> = secret

    @Override
    public void configure(Map<String, ?> configs, String mechanism, List<AppConfigurationEntry> jaas) {
        options = jaas.get(0).getOptions();
    }

    @Override
    public void handle(Callback[] callbacks) throws IOException, UnsupportedCallbackException {
        for (Callback callback : callbacks) {
            if (!(callback instanceof OAuthBearerValidatorCallback asked)) throw new UnsupportedCallbackException(callback);
            try {
                asked.token(verify(asked.tokenValue()));
            } catch (GeneralSecurityException | RuntimeException refused) {
                System.err.println("MskIamHandler refused: " + refused.getMessage());
                asked.error("invalid_token", null, null);
            }
        }
    }

    @Override
    public void close() {}

    private OAuthBearerToken verify(String token) throws GeneralSecurityException {
        URI url = URI.create(new String(Base64.getUrlDecoder().decode(token), StandardCharsets.UTF_8));
        String region = (String) options.get("region");
        String host = "kafka." + region + ".amazonaws.com";
        SortedMap<String, String> query = new TreeMap<>(); // values stay as they were encoded
        for (String pair : url.getRawQuery().split("&")) query.put(pair.split("=", 2)[0], pair.split("=", 2)[1]);
        require("https".equals(url.getScheme()) && host.equals(url.getHost()), "host " + url.getHost());
        require("kafka-cluster%3AConnect".equals(query.get("Action")), "action");
        String[] scope = URLDecoder.decode(query.get("X-Amz-Credential"), StandardCharsets.UTF_8).split("/");
        String date = query.get("X-Amz-Date");
        require(scope.length == 5 && date.startsWith(scope[1]) && region.equals(scope[2])
            && "kafka-cluster".equals(scope[3]) && "aws4_request".equals(scope[4]), "scope");
        Instant signed = Instant.from(DATE.parse(date));
        Instant expires = signed.plusSeconds(Long.parseLong(query.get("X-Amz-Expires")));
        require(Instant.now().isBefore(expires), "expired");
        String secret = (String) options.get("key_" + scope[0]);
        require(secret != null, "unknown access key");
        require(signature(query, host, secret, scope, date).equals(query.get("X-Amz-Signature")), "signature");
        return new Verified(token, expires.toEpochMilli(), signed.toEpochMilli(), scope[0]);
    }

    /** SigV4 of the presigned request; the signer adds User-Agent only after it has signed. */
    private static String signature(SortedMap<String, String> query, String host, String secret, String[] scope,
            String date) throws GeneralSecurityException {
        String signedQuery = query.entrySet().stream()
            .filter(e -> !e.getKey().equals("X-Amz-Signature") && !e.getKey().equals("User-Agent"))
            .map(e -> e.getKey() + "=" + e.getValue()).collect(Collectors.joining("&"));
        String request = "GET\n/\n" + signedQuery + "\nhost:" + host + "\n\nhost\n" + sha256("");
        String scopeText = String.join("/", Arrays.copyOfRange(scope, 1, 5));
        byte[] key = ("AWS4" + secret).getBytes(StandardCharsets.UTF_8);
        for (String part : Arrays.copyOfRange(scope, 1, 5)) key = hmac(key, part);
        return hex(hmac(key, "AWS4-HMAC-SHA256\n" + date + "\n" + scopeText + "\n" + sha256(request)));
    }

    private static byte[] hmac(byte[] key, String text) throws GeneralSecurityException {
        Mac mac = Mac.getInstance("HmacSHA256");
        mac.init(new SecretKeySpec(key, "HmacSHA256"));
        return mac.doFinal(text.getBytes(StandardCharsets.UTF_8));
    }

    private static String sha256(String text) throws GeneralSecurityException {
        return hex(MessageDigest.getInstance("SHA-256").digest(text.getBytes(StandardCharsets.UTF_8)));
    }

    private static String hex(byte[] bytes) {
        return HexFormat.of().formatHex(bytes);
    }

    private static void require(boolean holds, String what) {
        if (!holds) throw new IllegalArgumentException(what);
    }

    private record Verified(String value, long lifetimeMs, Long startTimeMs, String principalName)
            implements OAuthBearerToken {
        @Override
        public Set<String> scope() {
            return Set.of();
        }
    }
}

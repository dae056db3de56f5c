import com.sun.tools.attach.VirtualMachine;

import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.function.Function;
import java.util.stream.Collectors;

import javax.management.JMException;
import javax.management.MBeanServerConnection;
import javax.management.ObjectName;
import javax.management.remote.JMXConnectorFactory;
import javax.management.remote.JMXServiceURL;

/**
 * What the Kafka brokers and Cassandra nodes with these process ids have answered since they began, by kind of request:
 *
 * <pre>java scripts/java/ServerRequests.java PID... &lt;/dev/null</pre>
 *
 * It prints a line of JSON at its start, and one more for each line that it reads:
 * {"counts": {PID: {KIND: NUMBER}}, "failures": {PID: REASON}}.
 */
public final class ServerRequests {
    /** Some counters, and how each is called. */
    private record Family(String pattern, String attribute, Function<ObjectName, String> kind) {}

    private static final List<Family> FAMILIES = List.of(
        new Family("kafka.network:type=RequestMetrics,name=RequestsPerSec,*", "Count", name -> name.getKeyProperty("request")),
        new Family("org.apache.cassandra.metrics:type=ClientRequest,name=Latency,*", "Count", name -> name.getKeyProperty("scope")),
        new Family("org.apache.cassandra.metrics:type=CommitLog,name=CompletedTasks", "Value", name -> "CommitLogWrite"),
        // A timer around each sync, in spite of its name.
        new Family("org.apache.cassandra.metrics:type=CommitLog,name=WaitingOnFlush", "Count", name -> "CommitLogSync"));

    private final Map<String, MBeanServerConnection> servers = new LinkedHashMap<>();
    private final Map<String, String> failures = new TreeMap<>();

    public static void main(String[] pids) throws IOException {
        ServerRequests requests = new ServerRequests();
        for (String pid : pids) requests.attach(pid);
        BufferedReader input = new BufferedReader(new InputStreamReader(System.in));
        do {
            System.out.println(requests.read());
        } while (input.readLine() != null);
        // The connections' threads would keep it alive.
        System.exit(0);
    }

    private void attach(String pid) {
        if (!isJava(pid)) {
            failures.put(pid, "no Java program that this user can see");
            return;
        }
        try {
            VirtualMachine machine = VirtualMachine.attach(pid);
            String address = machine.startLocalManagementAgent();
            machine.detach();
            servers.put(pid, JMXConnectorFactory.connect(new JMXServiceURL(address)).getMBeanServerConnection());
        } catch (Exception failure) {
            failures.put(pid, failure.toString());
        }
    }

    /** Attaching sends SIGQUIT, which ends other programs. */
    private static boolean isJava(String pid) {
        return ProcessHandle.of(Long.parseLong(pid))
            .flatMap(process -> process.info().command())
            .filter(command -> command.endsWith("/java"))
            .isPresent();
    }

    private String read() {
        Map<String, String> counts = new TreeMap<>();
        servers.forEach((pid, server) -> {
            try {
                counts.put(pid, object(counts(server)));
            } catch (IOException | JMException failure) {
                failures.put(pid, failure.toString());
            }
        });
        Map<String, String> reasons = new TreeMap<>();
        failures.forEach((pid, reason) -> reasons.put(pid, quoted(reason)));
        return object(Map.of("counts", object(counts), "failures", object(reasons)));
    }

    private static Map<String, Long> counts(MBeanServerConnection server) throws IOException, JMException {
        Map<String, Long> counts = new TreeMap<>();
        for (Family family : FAMILIES) {
            for (ObjectName name : server.queryNames(new ObjectName(family.pattern), null)) {
                String kind = family.kind.apply(name);
                if (isCountedElsewhere(kind)) continue;
                Number count = (Number) server.getAttribute(name, family.attribute);
                // Kafka counts each version of a request alone.
                counts.merge(kind, count.longValue(), Long::sum);
            }
        }
        return counts;
    }

    /** Kafka's Fetch is FetchConsumer and FetchFollower; Cassandra's Read is the sum of Read-ONE, Read-LOCAL_QUORUM, ... */
    private static boolean isCountedElsewhere(String kind) {
        return kind.equals("Fetch") || kind.matches("(Read|Write)-.*");
    }

    private static String object(Map<String, ?> fields) {
        return fields.entrySet().stream()
            .map(field -> quoted(field.getKey()) + ":" + field.getValue())
            .collect(Collectors.joining(",", "{", "}"));
    }

    private static String quoted(String text) {
        return '"' + text.replaceAll("[\\p{Cntrl}]", " ").replace("\\", "\\\\").replace("\"", "\\\"") + '"';
    }
}
